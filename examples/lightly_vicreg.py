"""VICReg of Lightly on long-tailed digits: GH takes the projections that the loss compares."""

import torch
from lightly.data import LightlyDataset
from lightly.loss import VICRegLoss
from lightly.models.modules.heads import VICRegProjectionHead
from lightly.transforms.multi_view_transform import MultiViewTransform
from torch import nn
from torch.utils.data import DataLoader

from evensphere import Harmonizer, WithIndex
from long_tailed_digits import LongTailedDigits, accuracy, encoder, random_view

epochs = 12
transform = MultiViewTransform([random_view, random_view])
dataset = LightlyDataset.from_torch_dataset(LongTailedDigits(), transform=transform)
dataset = WithIndex(dataset)  # GH
loader = DataLoader(dataset, batch_size=64, shuffle=True)

backbone, criterion = encoder(), VICRegLoss()
model = nn.Sequential(backbone, VICRegProjectionHead(64, 256, 256, num_layers=2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
harmonizer = Harmonizer(256, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH

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

print("kNN accuracy in percent:", accuracy(backbone))
