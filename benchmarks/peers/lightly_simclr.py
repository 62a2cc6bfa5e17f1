"""The same step with Lightly's public API, as its SimCLR example has it (docs.lightly.ai/self-supervised-learning)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
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


class SimCLR(nn.Module):
    """A backbone and Lightly's head."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        features = int(backbone.num_features)  # type: ignore[arg-type]
        self.projection_head = SimCLRProjectionHead(features, features, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.projection_head(self.backbone(x).flatten(start_dim=1))
        return z


def transform() -> SimCLRTransform:
    brightness, contrast, saturation, hue = JITTER
    return SimCLRTransform(
        input_size=SIZE,
        cj_prob=JITTER_PROBABILITY,
        cj_bright=brightness,
        cj_contrast=contrast,
        cj_sat=saturation,
        cj_hue=hue,
        min_scale=SCALE[0],
        random_gray_scale=GRAY,
        gaussian_blur=0.0,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )


def step(setting: Setting) -> Callable[[], object]:
    loader = torch.utils.data.DataLoader(
        Images(setting.images, transform()),
        batch_size=setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
    )
    model = SimCLR(setting.encoder())
    criterion = NTXentLoss(temperature=TEMPERATURE)
    optimizer = torch.optim.SGD(model.parameters(), **OPTIMIZER)
    batches = endless(loader)

    def one() -> None:
        (x0, x1), _ = next(batches)
        with setting.autocast():
            z0, z1 = (model(setting.on_device_format(x)) for x in (x0, x1))
            loss = criterion(z0, z1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return one
