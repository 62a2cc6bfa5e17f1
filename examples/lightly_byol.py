"""BYOL of Lightly on long-tailed digits: GH takes the online projections, before the predictor."""

import copy

import torch
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
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

backbone, criterion = encoder(), NegativeCosineSimilarity()
online = nn.Sequential(backbone, BYOLProjectionHead(64, 128, 64))
predictor = BYOLPredictionHead(64, 128, 64)
target = copy.deepcopy(online)
deactivate_requires_grad(target)
parameters = [*online.parameters(), *predictor.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=5e-4)
harmonizer = Harmonizer(64, len(dataset), anchors=16, warm_up="6 epochs", ramp="3 epochs")  # GH

losses = []
for _ in range(epochs):
    for batch in loader:
        update_momentum(online, target, m=0.99)
        z0, z1 = (online(view) for view in batch[0])
        t0, t1 = (target(view).detach() for view in batch[0])
        loss = (criterion(predictor(z0), t1) + criterion(predictor(z1), t0)) / 2
        loss = loss + harmonizer((z0, z1), batch[-1]).loss  # GH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

print("kNN accuracy in percent:", accuracy(backbone))
