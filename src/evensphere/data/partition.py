"""Dividing a labelled collection for long-tailed research: held-out parts, a long-tailed training set, few-shot probes.

    everything = test + validation + pool        every class keeps at least one image in the pool
    train      = the pool, or a long-tailed subset of it
    probe      = the pool: what linear probes are fitted on (the protocol of CIFAR-LT)
    probe-k    = k images of each class of the pool, within probe-k' for every k' > k

Takes of one thing (frames of a track, slices of a patient; see `Source.groups`) never lie on both sides of a held-out
part's border. All choices are functions of the seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from evensphere.data.source import Source, Splits, take
from evensphere.data.subset import (
    PROFILES,
    hold_out_groups,
    long_tail_counts,
    long_tail_indices,
    published_profiles,
    stratified_split,
)
from evensphere.errors import InputError, unknown_name
from evensphere.ops.draw import permutation


@dataclass(frozen=True)
class Division:
    """What is wanted of a collection.

    validation, test: images of each class, or below 1 a share of each class, validation's of what test leaves; 0 holds
        nothing out.
    profile: None trains on the whole pool; one of PROFILES (see `long_tail_counts`), or one of `published_profiles()`.
    imbalance: of the profile. largest: images of the largest class; None keeps as many as the profile allows.
    counts: images of each class, in class order, instead of a profile.
    shuffle_classes: deal the profile's counts out to the classes in random order; otherwise the class that has the
        most images gets the most, and equal ones are served in class order.
    few_shot: images of each class in each probe.
    seed: of all choices.
    """

    validation: float = 0
    test: float = 0
    profile: str | None = None
    imbalance: float = 100
    largest: int | None = None
    counts: tuple[int, ...] | None = None
    shuffle_classes: bool = False
    few_shot: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            wanted = getattr(self, name)
            if not (wanted >= 0 and math.isfinite(wanted)) or (wanted > 1 and wanted != int(wanted)):
                raise InputError(
                    f"{name} = {wanted} was given; give a number of images of each class, or a share of each below 1."
                )
        if self.profile is not None and self.profile not in (*PROFILES, *published_profiles()):
            raise unknown_name("long-tail profile", self.profile, [*PROFILES, *published_profiles()])
        if self.profile is not None and self.counts is not None:
            raise InputError(f"Both the profile {self.profile} and counts were given; give one of them.")
        if any(shots < 1 for shots in self.few_shot):
            raise InputError(f"few_shot = {list(self.few_shot)} was given; a probe needs 1 image or more of a class.")


def divide(
    labels: Int64[Tensor, " n"], num_classes: int, division: Division, groups: Int64[Tensor, " n"] | None = None
) -> dict[str, Int64[Tensor, " _"]]:
    """The numbers of the images in each part, by the part's name: train, probe, then validation and test where they
    were wanted, then probe-1, probe-5, ... Each part is in ascending order.

    labels: in [0, num_classes); every class has an image. groups: images that must stay on one side (see
        `Source.groups`). Raises InputError for a class with too few images for what is wanted of it.
    """
    absent = (torch.bincount(labels, minlength=num_classes) == 0).nonzero()
    if len(absent):
        raise InputError(f"Class {int(absent[0])} has no images; divide a collection in which every class has some.")
    pool = torch.arange(len(labels))
    held = {}
    for part in ("test", "validation"):
        if wanted := getattr(division, part):
            chosen = _held_out(labels[pool], wanted, division.seed, part, None if groups is None else groups[pool])
            held[part], pool = pool[chosen], pool[~chosen]
    train = _training_set(labels[pool], num_classes, division)
    parts = {"train": pool[train].sort().values, "probe": pool}
    parts |= {part: held[part] for part in ("validation", "test") if part in held}
    for shots in sorted(division.few_shot):
        few = few_shot(labels[pool], shots, division.seed, None if groups is None else groups[pool])
        parts[f"probe-{shots}"] = pool[few]
    return parts


def split_by_class(pretrain: Source, seed: int = 0) -> Splits:
    """What an own collection that nobody has divided may be used for: everything trains; probe, validation and test
    are a stratified 60/20/20 split of the same images, drawn with `seed`, where two or more classes have three images
    or more. Takes of one thing (see `Source.groups`) stay in one part. The encoder has then seen the test images'
    pixels, though never their labels."""
    labels, groups = pretrain.labels(), pretrain.groups()
    if labels is None or int((torch.bincount(labels) >= 3).sum()) < 2:
        return Splits(pretrain)
    if groups is None:
        probe, validation, test = stratified_split(labels, (0.6, 0.2, 0.2), seed)
    else:
        parts = divide(labels, int(labels.max()) + 1, Division(validation=0.25, test=0.2, seed=seed), groups)
        probe, validation, test = (parts[name] for name in ("probe", "validation", "test"))
        if not (len(validation) and len(test)):
            return Splits(pretrain)  # every class is one group
    return Splits(pretrain, take(pretrain, probe), take(pretrain, validation), take(pretrain, test))


# --- held-out parts ---------------------------------------------------------------------------------------------------


def _held_out(
    labels: Int64[Tensor, " n"], wanted: float, seed: int, part: str, groups: Int64[Tensor, " n"] | None
) -> Bool[Tensor, " n"]:
    """Which images are held out; every class keeps at least one."""
    counts = torch.bincount(labels)
    target = (counts * wanted).round().long().clamp(min=1) if wanted < 1 else torch.full_like(counts, int(wanted))
    scarce = (target >= counts).nonzero()
    if wanted >= 1 and len(scarce):
        c = int(scarce[0])
        raise InputError(
            f"Class {c} has {int(counts[c])} images left, too few to hold {int(target[c])} out for {part} and keep "
            "one; ask for fewer, or for a share below 1."
        )
    target = target.minimum(counts - 1)
    if groups is not None:
        return hold_out_groups(labels, target, groups, seed, part)
    held = torch.zeros(len(labels), dtype=torch.bool)
    order = permutation(seed, part, 0, len(labels))
    held[order] = _occurrence(labels[order]) < target[labels[order]]
    return held


# --- the long-tailed training set -------------------------------------------------------------------------------------


def _training_set(labels: Int64[Tensor, " n"], num_classes: int, division: Division) -> Int64[Tensor, " m"]:
    available = torch.bincount(labels, minlength=num_classes).tolist()
    if division.counts is not None:
        counts = _given_counts(division.counts, available)
    elif division.profile in PROFILES:
        by_rank = _fitting_counts(division, available)
        if division.shuffle_classes:
            return long_tail_indices(labels, by_rank, division.seed, shuffle_classes=True)
        order = sorted(range(num_classes), key=lambda c: -available[c])
        counts = [by_rank[order.index(c)] for c in range(num_classes)]
    elif division.profile is not None:
        counts = _given_counts(published_profiles()[division.profile], available)
    else:
        return torch.arange(len(labels))
    return long_tail_indices(labels, counts, division.seed)


def _given_counts(counts: Sequence[int], available: Sequence[int]) -> list[int]:
    if len(counts) != len(available):
        raise InputError(f"Counts of {len(counts)} classes were given for a collection of {len(available)} classes.")
    for c, (wanted, there) in enumerate(zip(counts, available, strict=True)):
        if not 0 <= wanted <= there:
            raise InputError(f"{wanted} images of class {c} were asked for; there are {there} to choose from.")
    if sum(counts) < 2:
        raise InputError(f"{sum(counts)} image(s) were asked for in all; give counts of at least 2 to train on.")
    return list(counts)


def _fitting_counts(division: Division, available: Sequence[int]) -> list[int]:
    """Counts by rank, of the profile that is as large as the classes allow, or as large as was wanted."""

    def counts(largest: int) -> list[int]:
        return long_tail_counts(largest, len(available), division.imbalance, str(division.profile))

    # whoever is dealt the largest count must have it, where the order is random
    room = [min(available)] * len(available) if division.shuffle_classes else sorted(available, reverse=True)

    def fits(largest: int) -> bool:
        return all(wanted <= there for wanted, there in zip(counts(largest), room, strict=True))

    low, high = 1, room[0]  # counts grow with the largest, so the largest that fits is found by halving
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    if division.largest is not None:
        if not 1 <= division.largest <= low:
            raise InputError(
                f"A largest class of {division.largest} images was asked for; with this profile and these classes give "
                f"1 to {low}."
            )
        low = division.largest
    return counts(low)


# --- few-shot probes --------------------------------------------------------------------------------------------------


def few_shot(
    labels: Int64[Tensor, " n"], shots: int, seed: int = 0, groups: Int64[Tensor, " n"] | None = None
) -> Int64[Tensor, " m"]:
    """`shots` images of each class, ascending; fewer shots of the same seed are among them. As far as groups reach,
    each image is of another group. Raises InputError for a class with fewer images."""
    counts = torch.bincount(labels)
    scarce = (counts < shots).nonzero()
    if len(scarce):
        c = int(scarce[0])
        raise InputError(f"Class {c} has {int(counts[c])} images, too few for {shots} shots; ask for fewer.")
    order = permutation(seed, "few shot", 0, len(labels))
    if groups is not None:  # first each group's first image of a class, then the second ones, ...
        taken = groups * len(counts) + labels
        order = order[torch.argsort(_occurrence(taken[order]), stable=True)]
    place = _occurrence(labels[order])
    return order[place < shots].sort().values


def _occurrence(values: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How often each value came before: 0 for its first occurrence, then 1, ..."""
    order = torch.argsort(values, stable=True)
    _, counts = torch.unique(values, return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    occurrence = torch.empty_like(values)
    occurrence[order] = torch.arange(len(values)) - starts
    return occurrence
