"""SimCLR of Lightly on long-tailed digits. The three lines that end in `# GH` are all that was added to it."""

import torch
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import Tensor, nn
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view


class SimCLR(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection_head = SimCLRProjectionHead(64, 128, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection_head(self.backbone(x))


epochs = 12
transform = MultiViewTransform([random_view, random_view])
dataset = LightlyDataset.from_torch_dataset(LongTailedDigits(), transform=transform)
dataset = WithIndex(dataset)  # GH
loader = DataLoader(dataset, batch_size=64, shuffle=True)
model, criterion = SimCLR(encoder()), NTXentLoss(temperature=0.2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH

losses = []
for _ in range(epochs):
    for batch in loader:
        z0, z1 = (model(view) for view in batch[0])
        loss = criterion(z0, z1)
        loss = loss + harmonizer((z0, z1), batch[-1]).loss  # GH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

print("kNN accuracy in percent:", accuracy(model.backbone))
