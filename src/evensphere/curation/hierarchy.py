"""Hierarchical k-means and flat sampling from it, after Vo et al., "Automatic Data Curation for Self-Supervised
Learning: A Clustering-Based Approach" (2024), sections 3.2 to 3.4; written from the paper.

k-means spends its centres where the data is. Clustering the centres again, and these again, spreads them more evenly
over where data is at all; images drawn evenly from the branches of that tree are flatter than the collection.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy import ndarray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics.cluster import nearest_centre
from evensphere.ops.draw import permutation, seed_for, uniform

_EXACT = 20_000  # points up to which all of them are looked at in every iteration
_BATCH = 8192
_ITERATIONS = 30  # of k-means; more move hardly anything


class Clusters(NamedTuple):
    """centres: unit rows [k, d]. assigned: the cluster of each point, int64 [n]; no cluster is empty."""

    centres: Float[Tensor, "k d"]
    assigned: Int64[Tensor, " n"]


def k_means(points: Float[Tensor, "n d"], clusters: int, seed: int, rounds: int = 0) -> Clusters:
    """k-means by cosine similarity: scikit-learn's, of unit rows, in mini-batches for more than 20,000 points.

    clusters: 1 to n, fewer where points coincide. rounds: how often the centres are found anew from the points nearest
        to each alone, half as many as a cluster has on average (the paper's resampling): what is common then weighs
        less in where centres lie.
    """
    if not 1 <= clusters <= len(points):
        raise InputError(f"{clusters} clusters of {len(points)} images were asked for; give 1 to {len(points)}.")
    points = normalize(points.float(), dim=1)
    centres = _fit(points, clusters, seed_for(seed, "k-means", 0))
    for number in range(1, rounds + 1):
        nearest = _nearest_points(points, centres, max(1, len(points) // clusters // 2))
        if len(nearest) < clusters:
            break
        centres = _fit(points[nearest], clusters, seed_for(seed, "k-means", number))
    assigned = nearest_centre(points, centres).number
    used, assigned = assigned.unique(return_inverse=True)
    return Clusters(centres[used], assigned)


def _fit(points: Float[Tensor, "n d"], clusters: int, seed: int) -> Float[Tensor, "k d"]:
    options = {"n_clusters": clusters, "n_init": 1, "max_iter": _ITERATIONS, "random_state": seed % 2**32}
    exact = len(points) <= _EXACT
    model = KMeans(**options) if exact else MiniBatchKMeans(**options, batch_size=max(_BATCH, 2 * clusters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer clusters than asked for, where points coincide
        centres = torch.from_numpy(model.fit(points.numpy()).cluster_centers_)
    return normalize(centres, dim=1)


def _nearest_points(points: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], each: int) -> Int64[Tensor, " m"]:
    """Of each cluster, the `each` points nearest to its centre."""
    similarity, assigned = nearest_centre(points, centres)
    order = similarity.argsort(descending=True, stable=True)
    order = order[assigned[order].argsort(stable=True)]
    sizes = torch.bincount(assigned, minlength=len(centres))
    place = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[assigned[order]]
    return order[place < each].sort().values


# --- the tree ---------------------------------------------------------------------------------------------------------


def tree(points: Float[Tensor, "n d"], levels: Sequence[int], seed: int, rounds: int = 2) -> Int64[Tensor, "levels n"]:
    """The cluster of each point at each level, the coarsest first. Clusters of a level lie within those of the one
    before.

    levels: numbers of clusters, descending: of the points, of the centres of these, and so on. The points' order does
    not matter.
    """
    order = torch.from_numpy(np.lexsort(points.T[:8].numpy()[::-1]).copy())
    points_of_level, of_point = points[order], torch.arange(len(points))
    found = []
    for level, clusters in enumerate(levels):
        count = min(clusters, len(points_of_level))
        centres, assigned = k_means(points_of_level, count, seed_for(seed, "level", level), rounds)
        of_point = assigned[of_point]
        found.append(of_point)
        points_of_level = centres
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order))
    return torch.stack(found[::-1])[:, inverse]


def default_levels(count: int) -> list[int]:
    """A cluster for about 16 images, then for about 8 of these clusters, while 8 or more are left."""
    levels = [max(1, count // 16)]
    while levels[-1] // 8 >= 8:
        levels.append(levels[-1] // 8)
    return levels


# --- drawing from it --------------------------------------------------------------------------------------------------


def even_shares(paths: Int64[Tensor, "levels n"], size: float) -> Float64[Tensor, " n"]:
    """How much of each image is drawn when `size` images are drawn as evenly from the branches as can be: in (0, 1],
    summing to `size`.

    At every node its part of the size is divided equally among the branches, except that no branch gives more than it
    has; what it cannot give, the others give. paths: of each image, the branch at each level, coarsest first. The last
    level's members share equally.
    """
    amount = torch.tensor([float(size)], dtype=torch.float64)  # of each node
    node = torch.zeros(paths.shape[1], dtype=torch.int64)  # of each image
    for branch in paths:
        pairs, child = torch.stack([node, branch]).unique(dim=1, return_inverse=True)
        parents, sizes = pairs[0], torch.bincount(child)
        below = torch.empty(len(parents), dtype=torch.float64)
        for parent, members in enumerate(torch.arange(len(parents)).split(torch.bincount(parents).tolist())):
            below[members] = fill_evenly(sizes[members].double(), float(amount[parent]))
        node, amount = child, below
    return (amount / torch.bincount(node))[node].clamp(max=1.0)


def fill_evenly(capacities: Float64[Tensor, " m"], amount: float) -> Float64[Tensor, " m"]:
    """min(capacity, level) for the level at which these sum to `amount`. amount: at most the sum of the capacities."""
    ascending = capacities.sort().values
    before = ascending.cumsum(0) - ascending
    level = (amount - before) / torch.arange(len(ascending), 0, -1)  # if all from here on are cut at the same level
    cut = (level <= ascending).nonzero()[:, 0]
    return capacities.clone() if len(cut) == 0 else capacities.clamp(max=float(level[cut[0]]))


_CERTAIN = 1 - 1e-6  # a share that is 1 but for rounding


def draw_evenly(
    shares: Float64[Tensor, " n"], paths: Int64[Tensor, "levels n"], size: int, seed: int
) -> Int64[Tensor, " size"]:
    """Exactly `size` different images, each with its share for probability; ascending.

    Systematic sampling along the tree: every branch at every level gives its part, rounded up or down.
    """
    certain = shares >= _CERTAIN
    shuffled = permutation(seed, "curate/order", 0, len(shares)).numpy()
    order = np.lexsort([shuffled, *paths.flip(0).numpy()])
    rest = torch.from_numpy(order[~certain.numpy()[order]])
    left = size - int(certain.sum())
    if left == 0:
        return certain.nonzero()[:, 0]
    running: ndarray = (shares[rest] * (left / shares[rest].sum())).cumsum(0).numpy()
    start = float(uniform(seed, "curate/start", 0, torch.zeros(1, dtype=torch.int64), 1))
    places = np.searchsorted(running, np.arange(left) + start, side="right").clip(max=len(rest) - 1)
    return torch.cat([certain.nonzero()[:, 0], rest[torch.from_numpy(places)]]).sort().values
