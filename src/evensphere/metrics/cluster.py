"""How much a grouping that knows no labels has in common with the classes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor


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
