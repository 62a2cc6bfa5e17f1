"""Groupings that know no labels, and how much they have in common with the classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks
from evensphere.metrics.classify import check_banks, scores
from evensphere.metrics.density import BLOCK_ENTRIES
from evensphere.ops.draw import permutation, seed_for

_FITTED = 1_500_000  # images that centres are found with, as in DnC; the others are only assigned


class Nearest(NamedTuple):
    """The nearest centre of each of n points: how near (see `nearest_centre`), and its number."""

    similarity: Float[Tensor, " n"]
    number: Int64[Tensor, " n"]


def nearest_centre(
    points: Float[Tensor, "n d"], centres: Float[Tensor, "k d"], offset: Float[Tensor, " k"] | None = None
) -> Nearest:
    """Of each point the centre whose product with it, plus `offset`, is largest. Work grows with n k, memory does
    not."""
    block = max(1, BLOCK_ENTRIES // len(centres))
    products = (part @ centres.T for part in points.split(block))
    found = [(product if offset is None else product + offset).max(1) for product in products]
    return Nearest(torch.cat([one.values for one in found]), torch.cat([one.indices for one in found]))


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
        nearest = nearest_centre(points, centres, -centres.square().sum(1) / 2).number
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


def adjusted_rand_index(assigned: Int64[Tensor, " n"], labels: Int64[Tensor, " n"]) -> float:
    """The share of pairs of images on which grouping and classes agree, less chance (Hubert & Arabie, 1985): 1 for the
    same grouping, about 0 for a random one, whatever the number of groups. Common classes have most of the pairs."""
    return float(adjusted_rand_score(labels.cpu().numpy(), assigned.cpu().numpy()))


def matched(assigned: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], num_classes: int) -> Int64[Tensor, " n"]:
    """The class that each image's group stands for, where every group stands for one class and no class for two, so
    that most images are right (the Hungarian method). Groups left over stand for -1."""
    table = torch.bincount(assigned * num_classes + labels, minlength=(int(assigned.max()) + 1) * num_classes)
    groups, classes = linear_sum_assignment(table.view(-1, num_classes).cpu().numpy(), maximize=True)
    stands_for = torch.full((int(assigned.max()) + 1,), -1, dtype=torch.int64)
    stands_for[torch.from_numpy(groups)] = torch.from_numpy(classes)
    return stands_for[assigned.cpu()]


def cluster_agreement(banks: Banks, seed: int = 0) -> dict[str, Any]:
    """What k-means of the test features, with as many clusters as classes, has in common with the classes.

    Returns `classify.scores` of the class that each image's cluster is matched to, and "nmi" and "ari" (in [0, 1], see
    above). The matching looks at the test labels, as it does everywhere in the literature.
    """
    check_banks(banks)
    classes = len(banks.test.labels.unique())
    assigned = cosine_k_means(banks.test.features, classes, seed, least=1)
    return {
        **scores(matched(assigned, banks.test.labels, len(banks.train_counts)), banks),
        "nmi": normalized_mutual_information(assigned, banks.test.labels),
        "ari": adjusted_rand_index(assigned, banks.test.labels),
    }


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
