"""How the classes lie on the sphere (Zhou et al., NeurIPS 2023, section 5: the two uniformity measures)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError


def class_centroids(
    features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], num_classes: int
) -> Float[Tensor, "c d"]:
    """The mean direction of each class: features scaled to unit length, averaged, scaled to unit length again."""
    unit = normalize(features, dim=1)
    sums = torch.zeros(num_classes, features.shape[1], dtype=features.dtype).index_add_(0, labels, unit)
    return normalize(sums, dim=1)


def inter_class_uniformity(centroids: Float[Tensor, "c d"]) -> Float[Tensor, " c"]:
    """For each class, the mean distance of its centroid from the others; their mean is the paper's measure U."""
    distances = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.sum(1) / (len(centroids) - 1)


def neighborhood_uniformity(centroids: Float[Tensor, "c d"], k: int = 10) -> Float[Tensor, " c"]:
    """For each class, the mean distance of its centroid from the k nearest; their mean is the paper's measure U_k.

    1 <= k < number of classes, else InputError.
    """
    if not 1 <= k < len(centroids):
        raise InputError(f"{k} neighbours of {len(centroids)} classes were asked for; give 1 to {len(centroids) - 1}.")
    distances = torch.cdist(centroids, centroids, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    return distances.topk(k, dim=1, largest=False).values.mean(1)
