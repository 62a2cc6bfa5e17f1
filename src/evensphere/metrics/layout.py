"""Features in two dimensions, for people to look at: images that are alike lie close to each other.

A neighbour embedding by negative sampling (UMAP: McInnes, Healy & Melville, 2018; in the form of Damrich et al., ICLR
2023): images pull their nearest neighbours and push images drawn at random, until the map shows the neighbourhoods.
What no such map can show: how far apart groups are, how large they are, and how dense.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics.density import nearest_neighbours
from evensphere.ops.draw import seed_for

_NEIGHBOURS = 15  # that pull
_PUSHED = 20  # images drawn in each step that push
_STRENGTH = 20  # of the pushes, in pushes for each pull: UMAP's 5 leaves most of a map empty
_STEPS = 300
_RATE = 0.5  # at first, in units of the map's own, falling to 0
_WIDTH = 10.0  # of the start
_ONE_POINT = 1e-5  # spread below which all features are one


@torch.no_grad()
def two_dimensions(features: Float[Tensor, "n d"], seed: int = 0) -> Float32[Tensor, "n 2"]:
    """A map of the directions of the features; each axis fills 0 to 1, the longer one whole. No label is looked at; the
    seed decides everything. Work grows with n^2 for the neighbours, and with n for the rest.

    features: finite, n >= 1. Fewer than 4, or features that are all one, lie on a line in their order. Raises
    InputError where they are not finite.
    """
    if not features.isfinite().all():
        raise InputError("Features that are not finite were given; the network that made them has diverged.")
    points = normalize(features.double(), dim=1)
    centred = points - points.mean(0)
    if len(points) < 4 or float(centred.std(0, correction=0).max()) < _ONE_POINT:
        line = torch.linspace(0, 1, len(points))
        return torch.stack([line, torch.full_like(line, 0.5)], dim=1)
    start = _principal(centred)
    start = _WIDTH * start / start[:, 0].std()
    return _to_unit_square(_settle(start.float(), nearest_neighbours(points.float(), _NEIGHBOURS).index, seed))


def _settle(places: Float[Tensor, "n 2"], neighbours: Int64[Tensor, "n k"], seed: int) -> Float[Tensor, "n 2"]:
    """Pulled and pushed with Adam's steps, ever shorter."""
    n, k = neighbours.shape
    of, to = torch.arange(n).repeat_interleave(k), neighbours.flatten()
    generator = torch.Generator().manual_seed(seed_for(seed, "map"))
    places = places.clone()
    optimizer = torch.optim.Adam([places])
    for step in range(_STEPS):
        pushing = torch.randint(n, (n, _PUSHED), generator=generator)
        push = _STRENGTH * k / _PUSHED * _push(places[:, None] - places[pushing]).sum(1)
        pull = _pull(places[of] - places[to])
        gradient = push.index_add(0, of, pull).index_add(0, to, -pull)
        places.grad = gradient / k
        optimizer.param_groups[0]["lr"] = _RATE * (1 - step / _STEPS)
        optimizer.step()
    return places


def _pull(apart: Float[Tensor, "*e 2"]) -> Float[Tensor, "*e 2"]:
    """Gradient of log(1 + d^2)."""
    return 2 * apart / (1 + apart.square().sum(-1, keepdim=True))


def _push(apart: Float[Tensor, "*e 2"]) -> Float[Tensor, "*e 2"]:
    """Gradient of -log(d^2 / (1 + d^2)), bounded where two images meet."""
    squared = apart.square().sum(-1, keepdim=True)
    return -2 * apart / ((1e-3 + squared) * (1 + squared))


def _principal(centred: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
    """Along the two directions of most variance, each with its largest entry positive, whatever the solver."""
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions.flip(1)[:, [0, min(1, directions.shape[1] - 1)]]
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    coordinates: Tensor = centred @ (directions * largest.sign())
    return coordinates


def _to_unit_square(places: Float[Tensor, "n 2"]) -> Float32[Tensor, "n 2"]:
    low, high = places.min(0).values, places.max(0).values
    return (((places - (low + high) / 2) / (high - low).max().clamp(min=1e-9)) + 0.5).float()
