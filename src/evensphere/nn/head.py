"""What sits on an encoder while it is pretrained, and is thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

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


def mlp(widths: Sequence[int], last_bias: bool = False) -> nn.Sequential:
    """Linear layers from each width to the next, all but the last followed by BatchNorm and ReLU.

    No layer before a BatchNorm has a bias, which that would take away again; the last one has one if `last_bias`.
    """
    layers: list[nn.Module] = []
    for features, out in pairwise(widths[:-1]):
        layers += [nn.Linear(features, out, bias=False), nn.BatchNorm1d(out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=last_bias))
