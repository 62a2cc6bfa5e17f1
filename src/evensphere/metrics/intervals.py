"""How sure a number is: intervals of accuracies and of paired differences, and tests of differences.

Accuracies here are means over classes of each class's accuracy, so an image counts the more the fewer its class has in
the test set. What is uncertain about them:

* the test images: others of the same classes would have been classified otherwise;
* the seeds: other runs would have ended elsewhere;
* the classes, for whoever wants to speak of others than those tested (`over_classes`).

All in plain numpy, in float64; shares or percent, the result has the unit of what is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64
from scipy import stats

from evensphere.errors import InputError
from evensphere.ops.draw import seed_for

# Images worth of its neighbours' accuracy that a class is given when its *variance* is guessed, so that one image, or
# a class that is all right, does not pass for certainty. The estimate itself is not touched.
_PSEUDO_IMAGES = 2
_ROUNDING = 1e-20  # of a square, against its size
_ENUMERATED = 16  # differences up to which all 2^n signs are tried


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def settled(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


# One run --------------------------------------------------------------------------------------------------------------


def balanced_accuracy(right: Sequence[int], total: Sequence[int]) -> Interval | None:
    """The mean over classes of their accuracy, in [0, 1], whatever number of test images each has.

    right, total: of each class. Classes without test images do not count; None if there is no other.

    The interval is Wilson's, which stays honest near 0 and 1, with the number of images that the stratified variance is
    worth (Korn & Graubard, Survey Methodology 1998). A class's variance p (1 - p) / n is taken with its p moved by two
    images towards that of all. It covers what other images of *these* classes would have given: measured, in 94 to 98 %
    of cases, but in 86 % where there are two classes and one has three images.
    """
    known = [(r, n) for r, n in zip(right, total, strict=True) if n > 0]
    if not known:
        return None
    right_of, images = np.array(known, dtype=np.float64).T
    estimate = float((right_of / images).mean())
    pooled = (right_of.sum() + 1) / (images.sum() + 2)
    guessed = (right_of + _PSEUDO_IMAGES * pooled) / (images + _PSEUDO_IMAGES)
    variance = float((guessed * (1 - guessed) / images).sum()) / len(images) ** 2
    middle = float(guessed.mean())
    return Interval(estimate, *_wilson(estimate, middle * (1 - middle) / variance))


def class_accuracy(right: int, total: int) -> Interval | None:
    """The accuracy of one class, in [0, 1], with Wilson's interval (JASA 1927); None without test images."""
    return Interval(right / total, *_wilson(right / total, total)) if total else None


def _wilson(share: float, images: float) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.975))
    centre = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return max(0.0, centre - half), min(1.0, centre + half)


# Two runs on the same images ------------------------------------------------------------------------------------------


class Paired(NamedTuple):
    """A difference of two runs on the same images, image by image.

    shares: what each image contributes; their sum is the difference. strata: the class of each.
    """

    shares: Float64[np.ndarray, " n"]
    strata: Int64[np.ndarray, " n"]


def paired(
    first: Int64[np.ndarray, " n"], second: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], of: Sequence[int]
) -> Paired | None:
    """The difference in balanced accuracy over the classes `of`, in [-1, 1]: first minus second.

    first, second: predicted classes of the same images. Classes without images do not count; None if there is no other.
    """
    classes, images = np.unique(labels[np.isin(labels, of)], return_counts=True)
    if not len(classes):
        return None
    weight = np.zeros(max(int(labels.max()), *of) + 1)
    weight[classes] = 1 / (len(classes) * images)
    change = (first == labels).astype(np.float64) - (second == labels)
    return Paired(change * weight[labels], labels)


def paired_interval(pairs: Sequence[Paired], same_images: bool) -> Interval:
    """The mean difference over pairs of runs (one for each seed), with an interval for other seeds and other images.

    same_images: whether all pairs were scored on the same images, in one order.

    Three variances of the mean over S seeds add up (a crossed design with two random effects, seeds and images): that
    between seeds, that of images, and that of both together, which is in each of the first two and taken out once:

        images    the variance within classes of what an image contributes in the mean over seeds
        both      (mean over seeds of the same within one seed - images) / (S - 1)
        seeds     variance of the S differences / S, less `both`, at least 0

    Their sum counts as no less than the variance of the S differences / S: other images too cannot be more certain than
    other seeds alone. With images of their own, seeds vary by their images too, and that variance is all, unless all
    differences are the same up to rounding: then there is what their images would vary by. Degrees of freedom are
    Satterthwaite's (1946). A single pair has no seeds to tell anything by: its interval is for other images alone.
    """
    sums = np.array([pair.shares.sum() for pair in pairs])
    estimate, seeds = float(sums.mean()), len(sums)
    between = float(sums.var(ddof=1)) / seeds if seeds > 1 else 0.0
    each = float(np.mean([_variance(pair) for pair in pairs]))
    # of what was summed, to tell rounding by: where gains and losses cancel, the sums themselves are no more than that
    size = float(np.mean([np.square(pair.shares).sum() for pair in pairs]))
    if same_images or seeds == 1:
        images = _variance(Paired(np.mean([pair.shares for pair in pairs], axis=0), pairs[0].strata))
        both = max(0.0, each - images) / (seeds - 1) if seeds > 1 else 0.0
        variance = max(images + max(0.0, between - both), between)
        freedom = (seeds - 1) * (variance / between) ** 2 if between > 0 else math.inf
        half = _half(variance, freedom)
    elif between > _ROUNDING * size:
        half = _half(between, seeds - 1)
    else:  # seeds that agree to the last image are no more certain than their images
        half = _half(each / seeds, math.inf)
    return Interval(estimate, estimate - half, estimate + half)


def _half(variance: float, freedom: float) -> float:
    """Half of a 95 % interval by Student's t."""
    return float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)


def _variance(pair: Paired) -> float:
    """Of the sum, if the images of each class were drawn anew. Classes with one image are taken for one class."""
    counts = np.bincount(pair.strata)
    alone = counts[pair.strata] == 1
    strata = np.where(alone, len(counts), pair.strata)
    counts, sums = np.bincount(strata), np.bincount(strata, pair.shares)
    means = sums / np.maximum(counts, 1)
    squares = np.bincount(strata, (pair.shares - means[strata]) ** 2)
    several = counts > 1
    # images that all moved alike would seem to be certain: count as if one had not moved
    alike = several & (squares <= _ROUNDING * counts * means**2)
    squares = np.where(alike, means**2 * (counts - 1) / np.maximum(counts, 1), squares)
    found = float((squares[several] * counts[several] / (counts[several] - 1)).sum())
    return found + (float(pair.shares[alone][0] ** 2) if alone.sum() == 1 else 0.0)


def over_classes(differences: Float64[np.ndarray, "seeds classes"], draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of a table of differences, with an interval for other seeds and other *classes*.

    The pigeonhole bootstrap (Owen, Annals of Applied Statistics 2007): rows and columns are drawn with replacement,
    independently, `draws` times; the interval holds the middle 95 % of the means. A table of one row draws columns
    alone. With fewer than about ten classes, or three seeds, such intervals are too narrow.
    """
    seeds, classes = differences.shape
    if not seeds or not classes:
        raise InputError("Differences of no class or no seed were given; give at least one of each.")
    generator = np.random.default_rng(seed_for(seed, "bootstrap over classes"))
    rows = generator.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds
    columns = generator.multinomial(classes, np.full(classes, 1 / classes), draws) / classes
    means = ((rows @ differences) * columns).sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(differences.mean()), float(low), float(high))


def sign_flip_p(shares: Float64[np.ndarray, " n"], draws: int = 10_000, seed: int = 0) -> float:
    """The chance of a sum at least this far from 0 if each image's sign were a coin's: a paired permutation test.

    shares: what each image contributes to the difference. The two runs are taken as they are: it tells whether *these*
    encoders differ on images like these, not whether other seeds would. Up to 16 images on which they differ all
    sign patterns are tried and the chance is exact; otherwise `draws` of them, and it is at least 1 / (draws + 1).
    """
    moved = shares[shares != 0]
    if not len(moved):
        return 1.0
    seen = abs(float(moved.sum())) * (1 - 1e-9)  # sums in another order differ in their last bits
    if len(moved) <= _ENUMERATED:
        signs = 1 - 2 * ((np.arange(2 ** len(moved))[:, None] >> np.arange(len(moved))) & 1)
        return float((np.abs(signs @ moved) >= seen).mean())
    generator = np.random.default_rng(seed_for(seed, "sign flips"))
    block = max(1, 2**22 // len(moved))
    extreme = 0
    for start in range(0, draws, block):
        signs = 1 - 2 * generator.integers(0, 2, (min(block, draws - start), len(moved)), dtype=np.int8)
        extreme += int((np.abs(signs @ moved) >= seen).sum())
    return (extreme + 1) / (draws + 1)


def images_to_settle(difference: Interval, images: int) -> int | None:
    """About how many images in all would show a difference of this size to be none of chance, four times in five.

    difference: as estimated from `images` images, its interval being for other images alone. The variance falls with
    the number of images; 80 % power at a two-sided level of 5 % needs a difference of 1.96 + 0.84 standard errors. None
    for a difference of 0, which no number of images would settle.
    """
    if difference.estimate == 0:
        return None
    error = (difference.high - difference.low) / (2 * stats.norm.ppf(0.975))
    ratio = float((stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) * error / difference.estimate) ** 2
    return max(images, math.ceil(images * ratio))
