"""The same step with torchvision's v2 transforms and torch, as one would write it from their documentation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from setting import (
    EMBEDDING,
    GRAY,
    JITTER,
    JITTER_PROBABILITY,
    MEAN,
    OPTIMIZER,
    SCALE,
    SIZE,
    STD,
    TEMPERATURE,
    Images,
    Setting,
    endless,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.transforms import v2


class TwoViews:
    """Two views of an image by one policy."""

    def __init__(self, policy: v2.Transform) -> None:
        self.policy = policy

    def __call__(self, image: object) -> tuple[Tensor, Tensor]:
        return self.policy(image), self.policy(image)


def policy() -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomResizedCrop(SIZE, scale=SCALE),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], p=JITTER_PROBABILITY),
            v2.RandomGrayscale(GRAY),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def nt_xent(z1: Tensor, z2: Tensor) -> Tensor:
    """SimCLR's loss: each view's partner among all other views of the batch."""
    z = normalize(torch.cat([z1, z2]), dim=1)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return cross_entropy(logits, torch.arange(len(z)).roll(len(z1)))


def step(setting: Setting) -> Callable[[], object]:
    loader = torch.utils.data.DataLoader(
        Images(setting.images, TwoViews(policy())),
        batch_size=setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
    )
    encoder = setting.encoder()
    features = int(encoder.num_features)  # type: ignore[arg-type]
    head = nn.Sequential(
        nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, EMBEDDING)
    )
    model = nn.Sequential(encoder, head)
    optimizer = torch.optim.SGD(model.parameters(), **OPTIMIZER)
    batches = endless(loader)

    def one() -> None:
        (view1, view2), _ = next(batches)
        with setting.autocast():
            loss = nt_xent(model(setting.on_device_format(view1)), model(setting.on_device_format(view2)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return one
