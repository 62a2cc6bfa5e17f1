"""Many, medium and few: how well an encoder serves common and rare classes.

Classes are grouped by how many images of them *pretraining* saw, whatever the probe or the test set holds. A group's
accuracy is the mean over its classes. The literature has two rules:

* "thirds" (CIFAR-LT): classes ranked by count, a third of them in each group and the remainder in *many*: 34, 33, 33 of
  100 classes, 4, 3, 3 of 10. Fewer than three classes are all *many*.
* "shots" (ImageNet-LT, Places-LT; Liu et al., CVPR 2019): many > 100 images, medium 20 to 100, few < 20.

Equal counts are ranked by class number, the lower number first (towards *many*), so the thirds never depend on a
sorting algorithm. Counts that tie across a border (a step profile, a balanced set) are split by that rule: there,
"thirds" says less about rarity than it seems to.

Plain Python: reports and listings use this file without loading torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import fmean, pstdev, stdev
from typing import SupportsFloat

from evensphere.errors import InputError, unknown_name

GROUPS = ("many", "medium", "few")
RULES = ("thirds", "shots")


def class_groups(train_counts: Iterable[SupportsFloat], rule: str = "thirds") -> list[str]:
    """The group of each class: "many", "medium" or "few", in class order.

    train_counts: images of each class in pretraining, >= 0: a list, array or tensor [C].
    rule: "thirds" or "shots", see the top of this file.

    >>> class_groups([500, 5, 50, 90])
    ['many', 'few', 'medium', 'many']
    >>> class_groups([500, 5, 50, 90], rule="shots")
    ['many', 'few', 'medium', 'medium']
    """
    counts = [_number(count, "train_counts") for count in train_counts]
    if not counts:
        raise InputError("train_counts is empty; give the number of training images of each class.")
    if min(counts) < 0:
        raise InputError(f"train_counts holds {min(counts):g}; a class cannot have fewer than 0 training images.")
    if rule not in RULES:
        raise unknown_name("group rule", rule, RULES)
    return _by_thirds(counts) if rule == "thirds" else [_by_shots(count) for count in counts]


def group_accuracy(
    per_class: Iterable[SupportsFloat | None], train_counts: Iterable[SupportsFloat], rule: str = "thirds"
) -> dict[str, float | None]:
    """Accuracy of the many, medium and few classes, its spread over the groups and its mean over the classes.

    per_class: accuracy of each class, in percent or any other unit (the result has the same): a list, array or tensor
        [C]. None stands for a class without test images: it keeps its place in the grouping but enters no mean.
    train_counts, rule: see `class_groups`.

    Returns "many", "medium", "few": means over the group's classes, None for a group with none; "std", "std_sample":
    the standard deviation of the three group means with ddof 0 (what the authors' code computes) and ddof 1, None
    unless all three exist; "average": the mean over all *classes*, on a balanced test set the plain accuracy. It is
    not the mean of the three groups, which need not be of one size.

    >>> group_accuracy([80.0, 20.0, 50.0, 70.0], train_counts=[500, 5, 50, 90])["many"]
    75.0
    """
    accuracies = [None if a is None else _number(a, "per_class") for a in per_class]
    groups = class_groups(train_counts, rule)
    if len(accuracies) != len(groups):
        raise InputError(
            f"per_class has {len(accuracies)} classes but train_counts has {len(groups)}; give one of each per class."
        )
    known = [a for a in accuracies if a is not None]
    if not known:
        raise InputError("per_class holds no accuracy at all; at least one class needs test images.")
    means = {name: _mean(a for a, group in zip(accuracies, groups, strict=True) if group == name) for name in GROUPS}
    spread = [mean for mean in means.values() if mean is not None]
    complete = len(spread) == len(GROUPS)
    return {
        **means,
        "std": pstdev(spread) if complete else None,
        "std_sample": stdev(spread) if complete else None,
        "average": fmean(known),
    }


def _by_thirds(counts: list[float]) -> list[str]:
    third = len(counts) // 3
    sizes = (len(counts) - 2 * third, third, third)
    ranked = [name for name, size in zip(GROUPS, sizes, strict=True) for _ in range(size)]
    # sorted() is stable, reversed or not: equal counts stay in class order
    order = sorted(range(len(counts)), key=counts.__getitem__, reverse=True)
    group_of = dict(zip(order, ranked, strict=True))
    return [group_of[c] for c in range(len(counts))]


def _by_shots(count: float) -> str:
    if count > 100:
        return "many"
    return "medium" if count >= 20 else "few"


def _mean(accuracies: Iterable[float | None]) -> float | None:
    known = [a for a in accuracies if a is not None]
    return fmean(known) if known else None


def _number(value: SupportsFloat, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a row of a two-dimensional tensor
        raise InputError(f"{name} holds a {type(value).__name__} that is not one number; give one per class.") from None
    if not math.isfinite(number):
        raise InputError(f"{name} holds {number}; every entry must be a finite number.")
    return number
