"""How the classes lie on the sphere (Zhou et al., NeurIPS 2023, section 5: the two uniformity measures)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks
from evensphere.metrics.classify import check_banks
from evensphere.metrics.groups import GROUPS, class_groups


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


def centroid_spectrum(centroids: Float[Tensor, "c d"]) -> Float64[Tensor, " c"]:
    """The eigenvalues of the matrix of the centroids' cosines, largest first; they sum to the number of classes C.

    Of a simplex, where classes are as far from each other as can be: C - 1 times C / (C - 1), and 0. Of centroids that
    all lie in one point: C, and zeros.
    """
    found: Tensor = torch.linalg.eigvalsh(centroids.double() @ centroids.double().T).flip(0)
    return found


def class_geometry(banks: Banks, neighbours: int = 10) -> dict[str, Any]:
    """How the centroids of the test classes lie, by group. Classes without test images are left out.

    Returns "inter_class_uniformity" and "neighborhood_uniformity" (of `neighbours` classes, or all there are): means
    over the classes of each group, None for a group without any, and their average; the same names with "_per_class":
    a list over all classes, None for one without test images; "centroid_spectrum"; "largest_cosine": between two
    centroids.
    """
    check_banks(banks)
    tested = banks.test.labels.unique()
    if len(tested) < 2:
        raise InputError("All test images are of one class; how classes lie to each other needs two of them.")
    centroids = class_centroids(banks.test.features, banks.test.labels, len(banks.train_counts))[tested]
    groups = class_groups(banks.train_counts, banks.group_rule)
    members = {name: torch.tensor([groups[c] == name for c in tested.tolist()]) for name in GROUPS}

    def by_group(values: Tensor) -> dict[str, float | None]:
        means = {name: float(values[chosen].mean()) if chosen.any() else None for name, chosen in members.items()}
        return {**means, "average": float(values.mean())}

    def per_class(values: Tensor) -> list[float | None]:
        known = dict(zip(tested.tolist(), values.tolist(), strict=True))
        return [known.get(c) for c in range(len(groups))]

    cosines = (centroids @ centroids.T).fill_diagonal_(-1)
    spread = inter_class_uniformity(centroids)
    near = neighborhood_uniformity(centroids, min(neighbours, len(tested) - 1))
    return {
        "inter_class_uniformity": by_group(spread),
        "inter_class_uniformity_per_class": per_class(spread),
        "neighborhood_uniformity": by_group(near),
        "neighborhood_uniformity_per_class": per_class(near),
        "centroid_spectrum": centroid_spectrum(centroids).tolist(),
        "largest_cosine": float(cosines.max()),
    }
