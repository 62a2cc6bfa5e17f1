"""Features whose neighbourhoods, regions and dimensions are known, because they were made up."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.diagnosis.look import Look


def crowds(sizes: list[int], noise: float = 0.03, width: int = 32, seed: int = 0) -> Tensor:
    """Points around as many directions, so many around each, as from von Mises-Fisher distributions."""
    generator = torch.Generator().manual_seed(seed)
    centres = normalize(torch.randn(len(sizes), width, generator=generator), dim=1)
    points = centres.repeat_interleave(torch.tensor(sizes), dim=0)
    return normalize(points + noise * torch.randn(points.shape, generator=generator), dim=1)


def cloud(count: int, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def seen(features: Tensor, apart: float, seed: int = 0) -> Look:
    """A look whose two views are the features, each moved at random by `apart` of a standard deviation."""
    moves = apart * torch.randn(2, *features.shape, generator=torch.Generator().manual_seed(seed + 1))
    views = torch.stack([features + moves[0], features + moves[1]], dim=1)
    return Look(torch.arange(len(features)), features, views, views)
