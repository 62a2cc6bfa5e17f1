"""What sits on an encoder while it is pretrained, and is thrown away afterwards."""

from __future__ import annotations

from torch import nn


def projector(features: int, out: int = 128) -> nn.Sequential:
    """The paper's projection head: Linear(d, d), BatchNorm, ReLU, Linear(d, out, no bias), BatchNorm."""
    return nn.Sequential(
        nn.Linear(features, features),
        nn.BatchNorm1d(features),
        nn.ReLU(inplace=True),
        nn.Linear(features, out, bias=False),
        nn.BatchNorm1d(out),
    )
