"""What sits on an encoder while it is pretrained, and is thrown away afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

from evensphere.errors import InputError
from evensphere.values import check_memory


def projector(features: int, out: int = 128) -> nn.Sequential:
    """The paper's projection head: Linear(d, d), BatchNorm, ReLU, Linear(d, out, no bias), BatchNorm."""
    if out < 1:
        raise InputError(f"A projector of width {out} was asked for; give at least 1.")
    check_memory(f"A projector of widths {features} and {out}", 4.0 * features * (features + out))
    return nn.Sequential(
        nn.Linear(features, features),
        nn.BatchNorm1d(features),
        nn.ReLU(inplace=True),
        nn.Linear(features, out, bias=False),
        nn.BatchNorm1d(out),
    )


def mlp(
    widths: Sequence[int],
    last_bias: bool = False,
    batch_norm: bool = True,
    last_norm: Literal["none", "affine", "plain"] = "none",
) -> nn.Sequential:
    """Linear layers from each width to the next: the other papers' projectors and predictors.

    last_bias: whether the last layer has a bias.
    batch_norm: whether all but the last are followed by BatchNorm and ReLU, or, with biases, by ReLU alone.
    last_norm: BatchNorm after the last: none, "affine" (with scale and shift) or "plain" (without).
    No layer before a BatchNorm has a bias, which that would take away again.
    """
    if len(widths) < 2 or min(widths) < 1:
        raise InputError(f"A head of widths {tuple(widths)} was asked for; give 2 or more, each at least 1.")
    check_memory(f"A head of widths up to {max(widths)}", 4.0 * sum(a * b for a, b in pairwise(widths)))
    layers: list[nn.Module] = []
    for features, out in pairwise(widths[:-1]):
        layers.append(nn.Linear(features, out, bias=not batch_norm))
        layers += [nn.BatchNorm1d(out)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(widths[-2], widths[-1], bias=last_bias and last_norm == "none"))
    layers += [] if last_norm == "none" else [nn.BatchNorm1d(widths[-1], affine=last_norm == "affine")]
    return nn.Sequential(*layers)
