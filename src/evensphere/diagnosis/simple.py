"""Features of images before any training: what can be said of an image without having learnt anything.

A tiny copy, colour histograms and histograms of edge directions, each block counting as much as the others, whitened.
Images are alike by these if their colours and layout are, whatever they show.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, one_hot

SIZE = 32  # pixels, of the images that it is given
_TINY, _BINS, _CELLS, _DIRECTIONS = 8, 8, 4, 8
_WIDTH = 64  # after whitening
_RIDGE = 1e-3  # of the largest variance: directions below it are not blown up


class SimpleStatistics(nn.Module):
    """Normalised images [B, C, 32, 32] -> statistics [B, 72 C + 128], unscaled. mean, std: of the normalisation."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        pixels = (images * self.std + self.mean).clamp(0, 1)
        blocks = (_tiny(pixels), _colours(pixels), _edges(pixels.mean(1)))
        return torch.cat([block / block.shape[1] ** 0.5 for block in blocks], dim=1)


def _tiny(pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    return adaptive_avg_pool2d(pixels, _TINY).flatten(1)


def _colours(pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
    """Square roots of each channel's histogram, in which rare colours count as well."""
    bins = (pixels * _BINS).long().clamp(max=_BINS - 1).flatten(2)
    return one_hot(bins, _BINS).float().mean(2).sqrt().flatten(1)


def _edges(grey: Float[Tensor, "b h w"]) -> Float[Tensor, "b d"]:
    """Where edges of which direction are: 8 directions in 4 x 4 cells, weighted by how strong they are."""
    across = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]
    down = grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    strength = (across.square() + down.square()).sqrt()
    direction = torch.atan2(down, across).remainder(torch.pi) / torch.pi * _DIRECTIONS
    by_direction = one_hot(direction.long().clamp(max=_DIRECTIONS - 1), _DIRECTIONS).movedim(3, 1) * strength[:, None]
    return adaptive_avg_pool2d(by_direction, _CELLS).sqrt().flatten(1)


class Whitening:
    """The main directions of some features, each scaled to variance 1; fitted on those, applied to any."""

    def __init__(self, features: Float[Tensor, "n d"]) -> None:
        points = features.double()
        self.centre = points.mean(0)
        centred = points - self.centre
        variance, direction = torch.linalg.eigh(centred.T @ centred / len(points))
        kept = min(_WIDTH, features.shape[1], max(1, len(points) - 1))
        variance, direction = variance[-kept:].clamp(min=0), direction[:, -kept:]
        scale = (variance + _RIDGE * variance[-1] + torch.finfo(torch.float32).tiny).rsqrt()
        # without a single difference between images there is nothing to scale
        self.map = direction * torch.where(variance > 1e-12, scale, 0.0)

    def __call__(self, features: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
        whitened: Tensor = (features.double() - self.centre) @ self.map
        return whitened.float()
