"""How densely the images lie around each image, and who its neighbours are. No label is needed.

An image that has few like it lies in a sparse place of a good embedding. How far that is true of a given embedding is a
question of its own: docs/results.md has what was measured.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError

DECILES = 10

BLOCK_ENTRIES = 2**24  # similarities held at a time: 64 MiB in float32
_NEAREST = 1e-6  # cosine distance below which two images count as one: what float32 can tell apart


class Neighbours(NamedTuple):
    """The k most similar other images of each image, the most similar first.

    index: int64 [n, k]. similarity: their cosines, float32 [n, k].
    """

    index: Int64[Tensor, "n k"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls on neighbours
    similarity: Float[Tensor, "n k"]


@torch.no_grad()
def nearest_neighbours(
    features: Float[Tensor, "n d"], k: int = 10, among: Int64[Tensor, " m"] | None = None
) -> Neighbours:
    """Exact neighbours by cosine similarity. Work grows with n m, memory does not.

    features: finite, of any length; n >= 2. k >= 1, cut to m - 1. among: the images that can be neighbours, each once;
    None for all, m = n. Raises InputError otherwise.
    """
    allowed = torch.arange(len(features)) if among is None else among
    if len(allowed) < 2:
        raise InputError(f"Neighbours of {len(allowed)} image(s) were asked for; give the features of at least 2.")
    if k < 1:
        raise InputError(f"k = {k} neighbours were asked for; give at least 1.")
    if not features.isfinite().all():
        raise InputError("Features that are not finite were given; the network that made them has diverged.")
    points = normalize(features.float(), dim=1)
    allowed = allowed.to(points.device)
    others = points if among is None else points[allowed]
    k, block = min(k, len(others) - 1), max(1, BLOCK_ENTRIES // len(others))
    similar, indices = [], []
    for first in range(0, len(points), block):
        cosines = points[first : first + block] @ others.T
        itself = ((allowed >= first) & (allowed < first + block)).nonzero()[:, 0]
        cosines[allowed[itself] - first, itself] = -torch.inf
        nearest = cosines.topk(k, dim=1)
        similar.append(nearest.values)
        indices.append(allowed[nearest.indices])
    return Neighbours(torch.cat(indices), torch.cat(similar))


def knn_density(features: Float[Tensor, "n d"], k: int = 10) -> Float[Tensor, " n"]:
    """Local density of each image: minus the logarithm of its mean cosine distance to its k nearest others.

    Higher is denser: 0 where the neighbours are at right angles, 13.8 (the highest) where they are copies of the image.
    Arguments and errors as of `nearest_neighbours`. Only ranks within one set of features should be compared: how far
    apart all images lie depends on the network.
    """
    return density_of(nearest_neighbours(features, k))


def density_of(neighbours: Neighbours) -> Float[Tensor, " n"]:
    """`knn_density` of neighbours that are known already."""
    distance = (1 - neighbours.similarity).mean(dim=1)
    return -distance.clamp(min=_NEAREST).log()


def density_deciles(density: Float[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """The tenth that each image belongs to by its density: 0 the sparsest, 9 the densest.

    Equal densities are ranked by the images' order. Tenths differ by one image at most; fewer than 10 images leave some
    of them empty.
    """
    order = density.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank * DECILES // max(1, len(order))


def neighbourhood_consistency(first: Neighbours, second: Neighbours) -> Float[Tensor, " n"]:
    """How far two views of an image agree on who is like it: the share of its k neighbours that are the same in both,
    corrected for chance, so 1 is all of them and 0 (on average) what random neighbours share.

    first, second: of the same n images, with the same k < n - 1 (InputError otherwise: then all are neighbours). Where
    all features are one point neighbours are arbitrary, and so is this.
    """
    count, k = first.index.shape
    if k >= count - 1:
        raise InputError(f"{k} neighbours among {count} images are all there are; give at least {k + 2} images.")
    shared = (first.index[:, :, None] == second.index[:, None, :]).any(2).float().mean(1)
    chance = k / (count - 1)
    return (shared - chance) / (1 - chance)
