"""DINO of Lightly on long-tailed digits: GH takes the student's bottlenecks, before the prototypes."""

import torch
from lightly.data import LightlyDataset
from lightly.loss import DINOLoss
from lightly.models.modules import DINOProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from long_tailed_digits import LongTailedDigits, accuracy, encoder, local_view, random_view


class Student(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, DINOProjectionHead(64, 128, 64, 256)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bottleneck = self.head.layers(self.backbone(x))
        return bottleneck, self.head.last_layer(normalize(bottleneck, dim=-1))


epochs = 12
transform = MultiViewTransform([random_view, random_view, local_view, local_view])
dataset = LightlyDataset.from_torch_dataset(LongTailedDigits(), transform=transform)
dataset = WithIndex(dataset)  # GH
loader = DataLoader(dataset, batch_size=64, shuffle=True)
student, criterion = Student(encoder()), DINOLoss(output_dim=256, warmup_teacher_temp_epochs=5)
teacher = Student(encoder())
teacher.load_state_dict(student.state_dict())
deactivate_requires_grad(teacher)
optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, weight_decay=0.04)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH

losses = []
for epoch in range(epochs):
    for batch in loader:
        update_momentum(student, teacher, m=0.99)
        bottlenecks, outputs = zip(*(student(view) for view in batch[0]), strict=True)
        targets = [teacher(view)[1].detach() for view in batch[0][:2]]
        loss = criterion(targets, list(outputs), epoch=epoch)
        loss = loss + harmonizer(bottlenecks[:2], batch[-1]).loss  # GH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

print("kNN accuracy in percent:", accuracy(teacher.backbone))
