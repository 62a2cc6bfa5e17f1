"""Intervals and tests of differences: by enumeration, by closed forms, and by how often they cover the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from evensphere.errors import InputError
from evensphere.metrics.intervals import (
    Interval,
    Paired,
    balanced_accuracy,
    class_accuracy,
    images_to_settle,
    over_classes,
    paired,
    paired_interval,
    sign_flip_p,
)

# One run --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("right", "total"), [(0, 3), (3, 3), (7, 20), (1, 1), (40, 1000)])
def test_a_class_has_wilsons_interval(right: int, total: int) -> None:
    oracle = stats.binomtest(right, total).proportion_ci(method="wilson")
    got = class_accuracy(right, total)
    assert got is not None
    assert got == pytest.approx((right / total, oracle.low, oracle.high))
    alone = balanced_accuracy([right], [total])
    assert alone == pytest.approx(got), "one class is no special case"


def test_balanced_accuracy_is_the_mean_over_classes_that_have_images() -> None:
    got = balanced_accuracy([9, 0, 1], [10, 0, 2])
    assert got is not None
    assert got.estimate == pytest.approx((0.9 + 0.5) / 2)
    assert 0 < got.low < got.estimate < got.high < 1
    assert balanced_accuracy([0, 0], [0, 0]) is None
    assert class_accuracy(0, 0) is None


def test_many_images_give_the_stratified_variance() -> None:
    right, total = [90_000, 5_000, 20_000], [100_000, 10_000, 80_000]
    shares = np.array(right) / np.array(total)
    error = math.sqrt((shares * (1 - shares) / np.array(total)).sum()) / 3
    got = balanced_accuracy(right, total)
    assert got is not None
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=1e-3)


def test_an_interval_is_never_certain() -> None:
    perfect = balanced_accuracy([1, 1, 1], [1, 1, 1])
    assert perfect is not None
    assert (perfect.estimate, perfect.high) == (1, 1)
    assert 0.3 < perfect.low < 0.6, "three images, all right, say little"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "accuracies"),
    [
        ([1] * 30, [0.5] * 30),
        ([2] * 20, [0.9] * 20),
        ([50, 20, 5, 2, 1] * 4, [0.9, 0.8, 0.6, 0.4, 0.2] * 4),
        ([100] * 10, list(np.linspace(0.1, 0.99, 10))),
        ([200, 50, 10, 3], [0.95, 0.8, 0.5, 0.3]),
    ],
)
def test_balanced_accuracy_covers(images: list[int], accuracies: list[float]) -> None:
    generator, truth, trials = np.random.default_rng(0), float(np.mean(accuracies)), 4000
    covered = 0
    for right in generator.binomial(images, accuracies, (trials, len(images))):
        got = balanced_accuracy(right.tolist(), images)
        assert got is not None
        covered += got.low <= truth <= got.high
    assert 0.925 < covered / trials <= 1


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_a_paired_difference_is_the_difference_of_balanced_accuracies() -> None:
    generator = np.random.default_rng(0)
    labels, first, second = (generator.integers(0, 4, 60) for _ in range(3))
    got = paired(first, second, labels, of=[0, 2])
    assert got is not None
    expected = np.mean([(first == c)[labels == c].mean() - (second == c)[labels == c].mean() for c in (0, 2)])
    assert got.shares.sum() == pytest.approx(expected)
    assert (got.shares[(labels == 1) | (labels == 3)] == 0).all()


def test_an_empty_group_has_no_difference() -> None:
    labels = np.zeros(5, dtype=np.int64)
    assert paired(labels, labels, labels, of=[1, 2]) is None
    assert paired(labels, labels, labels, of=[]) is None


def test_one_class_and_one_seed_is_the_textbook_interval() -> None:
    change = np.array([1.0, 0, 0, -1, 1, 1, 0, 0, 1, 0]) / 10
    got = paired_interval([Paired(change, np.zeros(10, dtype=np.int64))], same_images=True)
    half = 1.959964 * (change * 10).std(ddof=1) / math.sqrt(10)
    assert got == pytest.approx((change.sum(), change.sum() - half, change.sum() + half))


def test_seeds_with_images_of_their_own_are_a_t_interval() -> None:
    pairs = [Paired(np.full(4, value / 4), np.array([0, 0, 1, 1])) for value in (0.1, 0.3, 0.35)]
    got = paired_interval(pairs, same_images=False)
    oracle = stats.t.interval(0.95, 2, loc=0.25, scale=stats.sem([0.1, 0.3, 0.35]))
    assert got == pytest.approx((0.25, *oracle))


def test_identical_runs_differ_by_nothing() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    pair = paired(labels, labels, labels, of=[0, 1])
    assert pair is not None
    assert paired_interval([pair, pair], same_images=True) == Interval(0, 0, 0)
    assert sign_flip_p(pair.shares) == 1


def test_classes_of_one_image_are_not_certain() -> None:
    shares = np.array([0.5, -0.25, 0.25])
    assert paired_interval([Paired(shares, np.arange(3))], True).high > shares.sum() + 0.3
    assert paired_interval([Paired(np.array([0.5]), np.array([0]))], True).high == pytest.approx(0.5 + 1.96 * 0.5, 1e-3)


def test_images_that_all_moved_alike_are_not_certain() -> None:
    labels = np.array([0, 0, 1])
    first, second = np.array([0, 0, 1]), np.array([1, 1, 1])
    pair = paired(first, second, labels, of=[0, 1])
    assert pair is not None
    got = paired_interval([pair], same_images=True)
    assert got.estimate == 0.5
    assert got.high - got.low > 0.9, "three images say little"


def test_seeds_that_agree_by_chance_are_not_certain() -> None:
    labels = np.repeat(np.arange(3), 10)
    first, second = labels.copy(), labels.copy()
    second[[0, 10, 20]] = (second[[0, 10, 20]] + 1) % 3
    pair = paired(first, second, labels, of=[0, 1, 2])
    assert pair is not None
    got = paired_interval([pair, pair], same_images=False)
    assert got.estimate == pytest.approx(0.1)
    assert got.high - got.low > 0.15


def test_seeds_whose_gains_and_losses_cancel_are_not_certain() -> None:
    """One image gained and one lost in each class, other ones for each seed: what is left of the sums is rounding."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(np.arange(10), range(3, 13)))
    pairs = []
    for _ in range(2):
        first, second = labels.copy(), labels.copy()
        for c in range(10):
            gained, lost = generator.choice((labels == c).nonzero()[0], 2, replace=False)
            second[gained] = first[lost] = (c + 1) % 10
        pair = paired(first, second, labels, of=range(10))
        assert pair is not None
        pairs.append(pair)
    sums = [float(pair.shares.sum()) for pair in pairs]
    assert sums == pytest.approx([0, 0], abs=1e-12)
    assert sums[0] != sums[1], "else there is nothing of what is tested here"
    got = paired_interval(pairs, same_images=False)
    assert got.high - got.low > 0.1


def test_other_images_too_are_no_more_certain_than_other_seeds_alone() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        pairs = simulated(generator, 3, 40, between=0.02, same_images=True)
        both, alone = (paired_interval(pairs, same_images) for same_images in (True, False))
        sums = [pair.shares.sum() for pair in pairs]
        assert both.high - both.low >= 2 * 1.96 * np.std(sums, ddof=1) / math.sqrt(3)
        assert alone.estimate == pytest.approx(both.estimate)


def simulated(
    generator: np.random.Generator, seeds: int, images: int, between: float, same_images: bool
) -> list[Paired]:
    """Pairs with a true difference of 0.05: an effect of the seed, one of the image, one of both."""
    strata, pairs = np.repeat(np.arange(4), images // 4), []
    image = generator.normal(size=images) * 0.3
    for _ in range(seeds):
        own = image if same_images else generator.normal(size=images) * 0.3
        change = 0.05 + generator.normal() * between + own + generator.normal(size=images) * 0.4
        pairs.append(Paired(change / images, strata))
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize(  # one seed says nothing of others, which is said
    ("seeds", "between"), [(1, 0.0), *((seeds, between) for seeds in (2, 3, 5) for between in (0.0, 0.01, 0.05))]
)
@pytest.mark.parametrize("same_images", [True, False])
def test_paired_intervals_cover(seeds: int, between: float, same_images: bool) -> None:
    generator, trials = np.random.default_rng(0), 1000
    intervals = [
        paired_interval(simulated(generator, seeds, 200, between, same_images), same_images) for _ in range(trials)
    ]
    covered = np.mean([one.low <= 0.05 <= one.high for one in intervals])
    assert 0.925 < covered < 0.995


# Classes --------------------------------------------------------------------------------------------------------------


def test_over_classes_is_the_bootstrap_by_enumeration() -> None:
    """All 27 resamples of three classes, of one seed: a sample of 10,000 has nearly their quantiles."""
    differences = np.array([[0.0, 1.0, 5.0]])
    means = sorted(np.mean(chosen) for chosen in itertools.product(differences[0], repeat=3))
    got = over_classes(differences)
    assert got.estimate == 2
    assert (got.low, got.high) == pytest.approx((means[0], means[-1]))
    assert over_classes(differences) == got, "the same draws every time"


def test_over_classes_has_the_variance_of_both() -> None:
    generator = np.random.default_rng(0)
    table = generator.normal(size=(30, 1)) + generator.normal(size=(1, 40))
    got = over_classes(table)
    error = math.sqrt(table.mean(1).var() / 30 + table.mean(0).var() / 40)
    assert got.high - got.low == pytest.approx(2 * 1.96 * error, rel=0.05)


@pytest.mark.slow
def test_over_classes_covers() -> None:
    generator, trials = np.random.default_rng(0), 600
    covered = 0
    for trial in range(trials):
        differences = 0.5 + generator.normal(size=(1, 33)) + generator.normal(size=(3, 33)) * 0.5
        got = over_classes(differences, draws=1000, seed=trial)
        covered += got.low <= 0.5 <= got.high
    assert 0.91 < covered / trials < 0.99


def test_no_classes_are_refused() -> None:
    with pytest.raises(InputError, match="no class"):
        over_classes(np.zeros((2, 0)))


# Sign flips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_few_differences_are_enumerated(seed: int) -> None:
    shares = np.random.default_rng(seed).integers(-2, 3, 9) / 7
    sums = [abs(np.dot(signs, shares)) for signs in itertools.product([-1, 1], repeat=9)]
    expected = np.mean([total >= abs(shares.sum()) - 1e-12 for total in sums])
    assert sign_flip_p(shares) == pytest.approx(expected)


def test_equal_weights_are_mcnemars_exact_test() -> None:
    shares = np.concatenate([np.full(40, 0.01), np.full(22, -0.01), np.zeros(500)])
    oracle = stats.binomtest(40, 62).pvalue
    assert sign_flip_p(shares, draws=20_000) == pytest.approx(oracle, abs=0.005)
    assert sign_flip_p(shares) == sign_flip_p(shares), "the same draws every time"
    assert sign_flip_p(np.full(15, 0.1)) == 2 * 0.5**15


@pytest.mark.slow
def test_without_a_difference_p_is_uniform() -> None:
    generator = np.random.default_rng(0)
    found = [sign_flip_p(generator.normal(size=40), draws=199, seed=trial) for trial in range(1000)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


# Power ----------------------------------------------------------------------------------------------------------------


def test_images_to_settle_is_the_textbook_formula() -> None:
    deviation, difference, images = 0.5, 0.05, 100
    half = 1.959964 * deviation / math.sqrt(images)
    expected = math.ceil(((1.959964 + 0.841621) * deviation / difference) ** 2)
    assert images_to_settle(Interval(difference, difference - half, difference + half), images) == expected
    assert images_to_settle(Interval(0.5, 0.49, 0.51), images) == images
    assert images_to_settle(Interval(0.0, -0.1, 0.1), images) is None


@pytest.mark.slow
def test_so_many_images_settle_it_four_times_in_five() -> None:
    generator, truth, deviation = np.random.default_rng(0), 0.1, 0.6
    half = 1.959964 * deviation / math.sqrt(50)
    needed = images_to_settle(Interval(truth, truth - half, truth + half), 50)
    assert needed is not None
    strata = np.zeros(needed, dtype=np.int64)
    found = [
        paired_interval([Paired((truth + deviation * generator.normal(size=needed)) / needed, strata)], True).low > 0
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)
