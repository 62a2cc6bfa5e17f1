"""Long-tailed subsets: the published counts and choices to the image, and what every profile and split must satisfy."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evensphere.data.source import ArraySource
from evensphere.data.subset import (
    PROFILES,
    hold_out,
    long_tail_counts,
    long_tail_indices,
    long_tail_splits,
    stratified_split,
)
from evensphere.errors import InputError

GOLDEN = Path(__file__).parent.parent / "golden"
PROTOCOL = np.load(GOLDEN / "protocol.npz")
PUBLISHED = np.load(GOLDEN / "cifar100_lt_published_counts.npz")


def checksum(indices: Tensor) -> int:
    return zlib.crc32(indices.numpy().astype("<i8").tobytes())


def test_there_are_golden_counts_to_compare_with() -> None:
    assert sum(key.startswith("cifar") for key in PROTOCOL) == 20


@pytest.mark.parametrize("key", [key for key in PROTOCOL if key.startswith("cifar")])
def test_counts_are_those_of_the_authors_code(key: str) -> None:
    data_set, profile, imbalance = key.split("_")
    num_classes = int(data_set.removeprefix("cifar"))
    counts = long_tail_counts(50_000 // num_classes, num_classes, int(imbalance), profile)
    assert counts == PROTOCOL[key].tolist()


@pytest.mark.parametrize("split", list(PUBLISHED))
def test_counts_with_50_held_out_are_those_of_the_published_splits(split: str) -> None:
    assert long_tail_counts(450, 100, 100) == sorted(PUBLISHED[split].tolist(), reverse=True)


@pytest.mark.parametrize("profile", PROFILES)
@given(
    max_count=st.integers(1, 100_000),
    num_classes=st.integers(1, 300),
    imbalance=st.floats(1, 1e4, allow_nan=False),
)
def test_every_profile_falls_from_max_count_to_the_asked_ratio(
    profile: str, max_count: int, num_classes: int, imbalance: float
) -> None:
    counts = long_tail_counts(max_count, num_classes, imbalance, profile)
    assert len(counts) == num_classes
    assert counts[0] == max_count
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] >= 1
    if num_classes > 1:
        assert abs(counts[-1] - max(1.0, max_count / imbalance)) <= 1


@pytest.mark.parametrize("profile", PROFILES)
def test_imbalance_1_is_balanced_and_one_class_keeps_everything(profile: str) -> None:
    assert long_tail_counts(37, 6, 1, profile) == [37] * 6
    assert long_tail_counts(37, 1, 50, profile) == [37]


def test_pareto_is_a_power_law_of_the_rank() -> None:
    counts = np.array(long_tail_counts(10**9, 50, 1000, "pareto"))
    slopes = np.diff(np.log(counts)) / np.diff(np.log(np.arange(1, 51)))
    np.testing.assert_allclose(slopes, -math.log(1000) / math.log(50), rtol=1e-4)


def test_classes_the_formula_would_empty_keep_one_image() -> None:
    assert long_tail_counts(10, 5, 1000) == [10, 1, 1, 1, 1]
    assert long_tail_counts(10, 4, 1000, "step") == [10, 10, 1, 1]


def test_odd_numbers_of_classes_step_down_before_the_middle() -> None:
    assert long_tail_counts(10, 5, 10, "step") == [10, 10, 1, 1, 1]


@pytest.mark.parametrize("imbalance", [0, -1, 0.5, math.nan, math.inf])
def test_impossible_ratios_are_refused(imbalance: float) -> None:
    with pytest.raises(InputError, match="imbalance ratio is"):
        long_tail_counts(10, 5, imbalance)


def test_other_impossible_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="at most 0 images"):
        long_tail_counts(0, 5, 10)
    with pytest.raises(InputError, match="of 0 classes"):
        long_tail_counts(5, 0, 10)
    with pytest.raises(InputError, match="did you mean 'step'"):
        long_tail_counts(5, 5, 10, "stepp")


def authors_subset(labels: np.ndarray, counts: list[int], seed: int, shuffle_classes: bool) -> list[int]:
    """The authors' procedure with numpy's global generator, the way they run it."""
    state = np.random.get_state()
    np.random.seed(seed)
    classes = np.unique(labels)
    if shuffle_classes:
        np.random.shuffle(classes)
    chosen: list[int] = []
    for c, count in zip(classes, counts, strict=True):
        members = np.where(labels == c)[0]
        np.random.shuffle(members)
        chosen.extend(members[:count].tolist())
    np.random.set_state(state)
    return chosen


@pytest.mark.parametrize("shuffle_classes", [False, True])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_images_are_those_the_authors_procedure_chooses(seed: int, shuffle_classes: bool) -> None:
    labels = torch.from_numpy(np.random.RandomState(3).randint(0, 10, 2000))
    counts = long_tail_counts(int(torch.bincount(labels).min()), 10, 20)
    indices = long_tail_indices(labels, counts, seed, shuffle_classes)
    assert indices.tolist() == authors_subset(labels.numpy(), counts, seed, shuffle_classes)


def test_chosen_images_never_change() -> None:
    """A new numpy that changed its legacy generator would silently change every published subset."""
    labels = torch.arange(1000) % 10
    counts = long_tail_counts(100, 10, 100)
    assert checksum(long_tail_indices(labels, counts)) == 117827535
    assert checksum(long_tail_indices(labels, counts, shuffle_classes=True)) == 2011250691
    assert checksum(hold_out(labels, 5, 0, "digits test")[0]) == 376084231


def test_the_subset_has_the_counts_and_no_image_twice() -> None:
    labels = torch.arange(600) % 6
    counts = long_tail_counts(100, 6, 50)
    indices = long_tail_indices(labels, counts)
    assert torch.bincount(labels[indices]).tolist() == counts
    assert len(set(indices.tolist())) == sum(counts)
    shuffled = long_tail_indices(labels, counts, shuffle_classes=True)
    assert torch.bincount(labels[shuffled]).tolist() != counts
    assert sorted(torch.bincount(labels[shuffled]).tolist(), reverse=True) == counts


def test_more_images_than_a_class_has_are_refused() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    with pytest.raises(InputError, match="Class 1 has 1 images and 2 were asked for"):
        long_tail_indices(labels, [3, 2])
    with pytest.raises(InputError, match="Class 2 has 0 images"):
        long_tail_indices(labels, [3, 1, 1])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_numpy_cannot_take_are_refused(seed: int) -> None:
    with pytest.raises(InputError, match="seed"):
        long_tail_indices(torch.tensor([0]), [1], seed)


LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(lambda given: [*range(6), *given])


@given(labels=LABELS.map(lambda given: given * 4), per_class=st.integers(0, 3), seed=st.integers(0, 9))
def test_held_out_images_are_stratified_and_apart(labels: list[int], per_class: int, seed: int) -> None:
    tensor = torch.tensor(labels)
    held, rest = hold_out(tensor, per_class, seed, "test")
    assert torch.cat([held, rest]).sort().values.tolist() == list(range(len(labels)))
    assert held.tolist() == sorted(held.tolist())
    assert rest.tolist() == sorted(rest.tolist())
    assert torch.bincount(tensor[held], minlength=6).tolist() == [per_class] * 6


def test_held_out_images_depend_on_seed_and_purpose_only() -> None:
    labels = torch.arange(200) % 4
    first = hold_out(labels, 10, 0, "validation")[0]
    torch.rand(3)  # the global generator has no say
    assert first.equal(hold_out(labels, 10, 0, "validation")[0])
    assert not first.equal(hold_out(labels, 10, 1, "validation")[0])
    assert not first.equal(hold_out(labels, 10, 0, "test")[0])


def test_holding_out_a_whole_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"leaves none of class 1, which has 2"):
        hold_out(torch.tensor([0, 0, 0, 1, 1]), 2, 0, "test")
    with pytest.raises(InputError, match=r"leaves none of class 1, which has 0"):
        hold_out(torch.tensor([0, 0, 2, 2]), 1, 0, "test")
    with pytest.raises(InputError, match="-1 images"):
        hold_out(torch.tensor([0, 0]), -1, 0, "test")


@given(labels=LABELS, seed=st.integers(0, 9))
def test_every_class_reaches_the_parts_it_can(labels: list[int], seed: int) -> None:
    tensor = torch.tensor(labels)
    parts = stratified_split(tensor, seed=seed)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(labels)))
    train, validation, test = (torch.bincount(tensor[part], minlength=6).tolist() for part in parts)
    for c, count in enumerate(torch.bincount(tensor).tolist()):
        assert train[c] >= 1
        assert (test[c] >= 1) == (count >= 2)
        assert (validation[c] >= 1) == (count >= 3)
        if count >= 3:
            assert abs(test[c] - 0.2 * count) <= 0.5 or test[c] == 1
            assert abs(validation[c] - 0.2 * count) <= 0.5 or validation[c] == 1


def test_fractions_are_kept_exactly_where_they_divide() -> None:
    labels = torch.arange(300) % 3
    sizes = [torch.bincount(labels[part]).tolist() for part in stratified_split(labels, (0.5, 0.2, 0.3), 1)]
    assert sizes == [[50] * 3, [20] * 3, [30] * 3]
    assert [len(part) for part in stratified_split(labels, (1.0, 0.0, 0.0), 1)] == [300, 0, 0]


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_fractions_that_do_not_divide_the_whole_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(InputError, match="fractions"):
        stratified_split(torch.tensor([0, 0, 1]), fractions)


def test_long_tail_splits_keep_validation_and_test_apart() -> None:
    images = torch.arange(120, dtype=torch.uint8).reshape(120, 1, 1, 1)
    train = ArraySource("train", images, torch.arange(120) % 3, ["a", "b", "c"])
    test = ArraySource("test", images[:3], torch.arange(3), ["a", "b", "c"])
    splits = long_tail_splits(train, test, imbalance=10, validation_per_class=4)
    assert splits.probe is not None
    assert splits.validation is not None
    assert splits.train_counts() == [36, 11, 3]
    pixels = [{int(part.read(i)) for i in range(len(part))} for part in (splits.pretrain, splits.probe)]
    held = {int(splits.validation.read(i)) for i in range(len(splits.validation))}
    assert pixels[0] < pixels[1]
    assert len(held) == 12
    assert not held & pixels[1]
    assert len(held | pixels[1]) == 120
    assert long_tail_splits(train, test, imbalance=1, validation_per_class=0).validation is None
    assert long_tail_splits(train, test, imbalance=1, largest=7).train_counts() == [7, 7, 7]
    with pytest.raises(InputError, match="give 1 to 40"):
        long_tail_splits(train, test, imbalance=1, largest=41)


def test_a_published_profile_decides_the_counts_of_every_class() -> None:
    images = torch.zeros(50_000, 1, 1, 1, dtype=torch.uint8)
    train = ArraySource("train", images, torch.arange(50_000) % 100, [str(c) for c in range(100)])
    splits = long_tail_splits(train, train, 100, "cifar100-lt-split2", validation_per_class=50)
    assert splits.train_counts() == PUBLISHED["split2"].tolist()
    with pytest.raises(InputError, match="up to 450 images; train has 100 classes and leaves 400"):
        long_tail_splits(train, train, 100, "cifar100-lt-split2", validation_per_class=100)
