"""Groupings that know no labels, and how much they have in common with the classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops.draw import permutation, seed_for

_FITTED = 1_500_000  # images that centres are found with, as in DnC; the others are only assigned


def cosine_k_means(features: Float[Tensor, "n d"], clusters: int, seed: int, least: int = 2) -> Int64[Tensor, " n"]:
    """k-means by cosine similarity: scikit-learn's, of the features scaled to unit length. The cluster of each.

    clusters: at most n. least: images that a cluster must hold; one that holds fewer is given up, the smallest first,
        and its images go to the nearest of the others. So there may be fewer clusters than asked for; they are counted
        from 0 without gaps.
    The same on the same machine for the same seed. Raises InputError for a number of clusters out of range.
    """
    if not 1 <= clusters <= len(features):
        raise InputError(f"{clusters} clusters of {len(features)} images were asked for; give 1 to {len(features)}.")
    points = normalize(features.float(), dim=1)
    fitted = points if len(points) <= _FITTED else points[permutation(seed, "clusters", 0, len(points))[:_FITTED]]
    k_means = KMeans(clusters, n_init=10, random_state=seed_for(seed, "clusters") % 2**32)
    centres = torch.from_numpy(k_means.fit(fitted.numpy()).cluster_centers_)
    while True:
        nearest = (points @ centres.T - centres.square().sum(1) / 2).argmax(1)
        sizes = torch.bincount(nearest, minlength=len(centres))
        if len(centres) == 1 or sizes.min() >= least:
            return nearest
        centres = torch.cat([centres[: sizes.argmin()], centres[sizes.argmin() + 1 :]])


def normalized_mutual_information(assigned: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> float:
    """NMI of a grouping and the classes, in [0, 1]: 1 if each determines the other, 0 if they are independent.

    Normalised by the arithmetic mean of the two entropies (scikit-learn's default). It grows with the number of groups
    even for random ones, so compare only groupings of about as many groups.
    """
    return float(normalized_mutual_info_score(labels.cpu().numpy(), assigned.cpu().numpy()))


class Ownership(NamedTuple):
    """Which classes own a region, that is, are the most frequent class in it.

    owner: class of each region that holds an image, -1 for an empty one. at_home: for each class, the share of its
        images that stand in a region of its own.
    """

    owner: Int64[Tensor, " k"]
    at_home: Float[Tensor, " c"]


def region_ownership(
    assigned: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], num_regions: int, num_classes: int
) -> Ownership:
    """Who owns which region; of classes equally frequent in one, the first. A class without images has share 0."""
    table = torch.bincount(assigned * num_classes + labels, minlength=num_regions * num_classes)
    table = table.view(num_regions, num_classes)
    owner = torch.where(table.sum(1) > 0, table.argmax(1), -1)
    at_home = torch.bincount(labels[owner[assigned] == labels], minlength=num_classes)
    return Ownership(owner, at_home / torch.bincount(labels, minlength=num_classes).clamp(min=1))


def effective_number(shares: Float[Tensor, " k"]) -> float:
    """exp of the entropy: how many equal regions would be as diverse as these. shares: >= 0, summing to 1."""
    return float(torch.special.entr(shares.double()).sum().exp())
