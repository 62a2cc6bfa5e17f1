"""Subsets chosen by label: the long-tailed training sets of the literature, and stratified held-out parts.

A long tail is made in two steps: how many images each class keeps (`long_tail_counts`), then which ones
(`long_tail_indices`). C is the number of classes, IR the imbalance ratio: images of the largest class over images of
the smallest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from evensphere.data.source import Source, Splits, take
from evensphere.errors import InputError, unknown_name
from evensphere.ops.draw import permutation

PROFILES = ("exp", "step", "pareto")


def long_tail_counts(max_count: int, num_classes: int, imbalance: int | float, profile: str = "exp") -> list[int]:
    """Images kept of each class, largest class first.

    exp: int(max_count * (1/IR) ** (c/(C-1))), the published CIFAR-LT (Cui et al., CVPR 2019; Cao et al., NeurIPS 2019).
    step: the first floor(C/2) classes keep max_count images, the others int(max_count * (1/IR)) (Buda et al., 2018).
    pareto: round(max_count * (c+1) ** -a), a power law of the rank (Zipf) whose exponent a = log(IR)/log(C) makes the
        last class 1/IR of the first; its head is thinner and its tail longer than exp's.

    Every class keeps at least one image: where IR > max_count the formulas would leave the last classes empty, and the
    ratio that results is smaller than IR. int() cuts, so the smallest class can be one image short of max_count / IR.
    One class keeps max_count. Raises InputError unless max_count >= 1, num_classes >= 1 and 1 <= imbalance < infinity.

    >>> long_tail_counts(5000, 10, 100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if max_count < 1 or num_classes < 1:
        raise InputError(
            f"A long tail of {num_classes} classes with at most {max_count} images; both must be 1 or more."
        )
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise InputError(f"The imbalance ratio is {imbalance}; give a number of 1 (balanced) or more, such as 100.")
    shares = _shares(num_classes, 1 / imbalance, profile)
    to_int = round if profile == "pareto" else int
    return [max(1, to_int(max_count * share)) for share in shares]


def _shares(num_classes: int, smallest: float, profile: str) -> list[float]:
    """Size of each class relative to the first, before rounding."""
    if profile not in PROFILES:
        raise unknown_name("long-tail profile", profile, PROFILES)
    if num_classes == 1:
        return [1.0]
    if profile == "exp":
        return [smallest ** (c / (num_classes - 1)) for c in range(num_classes)]
    if profile == "step":
        return [1.0 if c < num_classes // 2 else smallest for c in range(num_classes)]
    exponent = math.log(smallest) / math.log(num_classes)
    return [(c + 1) ** exponent for c in range(num_classes)]


@cache
def published_profiles() -> dict[str, tuple[int, ...]]:
    """Images of each class in training sets that others published, by name: the five CIFAR-100-LT splits that SDCLR,
    BCL and GH report on (9,754 images of 450 a class; imbalance 100)."""
    content = json.loads(Path(__file__).with_name("published_counts.json").read_text())
    return {name: tuple(counts) for name, counts in content.items()}


def long_tail_indices(
    labels: Int64[Tensor, " n"], counts: Sequence[int], seed: int = 0, shuffle_classes: bool = False
) -> Int64[Tensor, " m"]:
    """Which images are kept: `counts[c]` of class c, grouped by class, m = sum(counts).

    Chosen as the published subsets are, with numpy's legacy RandomState(seed): per class in class order, the class's
    image numbers are shuffled and the first ones kept (Cao et al., NeurIPS 2019; seed 0). With shuffle_classes the same
    generator first shuffles the order of the classes, so `counts[0]` goes to a random class (the GH authors' CIFAR-10).

    Raises InputError if a class has fewer images than asked, or the seed is outside 0..2^32-1.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"The subset's seed is {seed}; numpy's RandomState takes 0 to {2**32 - 1}.")
    generator = np.random.RandomState(seed)
    classes = np.arange(len(counts))
    if shuffle_classes:
        generator.shuffle(classes)
    array = labels.numpy()
    chosen = []
    for c, count in zip(classes, counts, strict=True):
        members = np.flatnonzero(array == c)
        if len(members) < count:
            raise InputError(f"Class {c} has {len(members)} images and {count} were asked for; ask for fewer.")
        generator.shuffle(members)
        chosen.append(members[:count])
    return torch.from_numpy(np.concatenate(chosen).astype(np.int64))


def hold_out(
    labels: Int64[Tensor, " n"], per_class: int, seed: int, purpose: str, groups: Int64[Tensor, " n"] | None = None
) -> tuple[Int64[Tensor, " held"], Int64[Tensor, " rest"]]:
    """(held, rest): `per_class` random images of every class, and all the others; both sorted, together everything.

    groups: images that must stay on one side (see `Source.groups`); then whole groups, so about as many.
    The choice is a function of (seed, purpose) alone. Raises InputError unless every class keeps at least one image.
    """
    if per_class < 0:
        raise InputError(f"{per_class} images of each class were to be held out; give 0 or more.")
    smallest, size = min(enumerate(torch.bincount(labels).tolist()), key=lambda pair: pair[1])
    if size <= per_class:
        raise InputError(
            f"Holding out {per_class} images of each class leaves none of class {smallest}, which has {size}; "
            "hold out fewer."
        )
    if groups is not None:
        chosen = hold_out_groups(labels, torch.full((int(labels.max()) + 1,), per_class), groups, seed, purpose)
        return chosen.nonzero()[:, 0], (~chosen).nonzero()[:, 0]
    members = _shuffled_members(labels, seed, purpose)
    held = torch.cat([numbers[:per_class] for numbers in members])
    rest = torch.cat([numbers[per_class:] for numbers in members])
    return held.sort().values, rest.sort().values


def hold_out_groups(
    labels: Int64[Tensor, " n"], target: Int64[Tensor, " classes"], groups: Int64[Tensor, " n"], seed: int, purpose: str
) -> Bool[Tensor, " n"]:
    """Which images are held out so that whole groups are, in random order, until about `target` of each class are.
    Every class keeps at least one image."""
    counts = torch.bincount(labels, minlength=len(target))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for members in _shuffled_groups(groups, seed, purpose):
        theirs = torch.bincount(labels[members], minlength=len(counts))
        leaves_some = ((counts - theirs)[theirs > 0] > 0).all()
        if target[theirs.argmax()] > 0 and leaves_some:  # a group goes where its most frequent class is wanted
            held[members] = True
            target, counts = target - theirs, counts - theirs
    return held


def _shuffled_groups(groups: Int64[Tensor, " n"], seed: int, purpose: str) -> list[Int64[Tensor, " members"]]:
    """The images of each group, the groups in random order."""
    _, number, sizes = torch.unique(groups, return_inverse=True, return_counts=True)
    members = torch.argsort(number, stable=True).split(sizes.tolist())
    return [members[i] for i in permutation(seed, purpose, 0, len(sizes)).tolist()]


def stratified_split(
    labels: Int64[Tensor, " n"], fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " validation"], Int64[Tensor, " test"]]:
    """(train, validation, test): every class divided by `fractions`, each part sorted, together everything.

    Small classes are served in the order train, test, validation: one image goes to train, two to train and test, three
    or more to all parts whose fraction is not 0. The choice is a function of the seed alone.
    Raises InputError unless the fractions are not negative, sum to 1, and train's is above 0.
    """
    if min(fractions) < 0 or fractions[0] == 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"The fractions of train, validation and test are {fractions}; give three that sum to 1.")
    train, validation, test = [], [], []
    for numbers in _shuffled_members(labels, seed, "stratified split"):
        num_validation, num_test = _part_sizes(len(numbers), fractions)
        test.append(numbers[:num_test])
        validation.append(numbers[num_test : num_test + num_validation])
        train.append(numbers[num_test + num_validation :])
    parts = (torch.cat(part).sort().values for part in (train, validation, test))
    return next(parts), next(parts), next(parts)


def _part_sizes(count: int, fractions: tuple[float, float, float]) -> tuple[int, int]:
    """(validation, test) images of a class of `count`, leaving at least one for train."""
    wanted = [0 if fraction == 0 else max(1, math.floor(count * fraction + 0.5)) for fraction in fractions]
    num_test = max(0, min(wanted[2], count - 1))
    return max(0, min(wanted[1], count - 1 - num_test)), num_test


def _shuffled_members(labels: Int64[Tensor, " n"], seed: int, purpose: str) -> list[Int64[Tensor, " members"]]:
    """The image numbers of each class in [0, max(labels)], in random order."""
    order = permutation(seed, purpose, 0, len(labels))
    by_class = order[torch.argsort(labels[order], stable=True)]
    ends = [0, *torch.bincount(labels).cumsum(0).tolist()]
    return [by_class[start:end] for start, end in pairwise(ends)]


def long_tail_splits(
    train: Source,
    test: Source,
    imbalance: int | float,
    profile: str = "exp",
    seed: int = 0,
    validation_per_class: int = 0,
    shuffle_classes: bool = False,
    largest: int | None = None,
) -> Splits:
    """The protocol of CIFAR-LT on a labelled, roughly balanced training set.

    `validation_per_class` images of each class are held out (0: validation is None). What is left is the probe's set,
    and its long-tailed subset is what the encoder learns from; the largest class keeps `largest` images, or as many as
    the smallest class of the probe's set has. `profile` may also be a published one (see `published_profiles`), which
    decides the counts of every class. Imbalance 1 with a `largest` makes a balanced set of a chosen size.
    """
    labels = train.labels()
    assert labels is not None, "only a labelled set can be made long-tailed"
    assert train.class_names is not None, "a labelled set names its classes"
    held, rest = hold_out(labels, validation_per_class, seed, f"{train.name} validation", train.groups())
    max_count = int(torch.bincount(labels[rest]).min())
    if largest is not None:
        if not 1 <= largest <= max_count:
            raise InputError(f"A largest class of {largest} images was asked for; give 1 to {max_count}.")
        max_count = largest
    if profile in published_profiles():
        counts = list(published_profiles()[profile])
        if len(counts) != len(train.class_names) or max(counts) > max_count:
            raise InputError(
                f"The profile {profile} has {len(counts)} classes of up to {max(counts)} images; {train.name} has "
                f"{len(train.class_names)} classes and leaves {max_count} of each to choose from."
            )
    else:
        counts = long_tail_counts(max_count, len(train.class_names), imbalance, profile)
    probe = take(train, rest)
    return Splits(
        pretrain=take(probe, long_tail_indices(labels[rest], counts, seed, shuffle_classes)),
        probe=probe,
        validation=take(train, held) if validation_per_class else None,
        test=test,
    )
