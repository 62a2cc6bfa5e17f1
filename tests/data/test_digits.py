"""The digits: scikit-learn's pixels, parts that do not overlap, a tail that moves with the seed."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from evensphere.data.digits import digits
from evensphere.data.source import ArraySource, Source
from evensphere.errors import InputError


def numbers(part: Source | None) -> set[int]:
    assert isinstance(part, ArraySource)
    assert len(set(part.numbers.tolist())) == len(part)
    return set(part.numbers.tolist())


def test_pixels_and_labels_are_scikit_learns() -> None:
    loaded = load_digits()
    for part in digits()[:4]:
        assert isinstance(part, ArraySource)
        assert part.images.dtype == torch.uint8
        assert part.images.shape[1:] == (1, 8, 8)
        labels = part.labels()
        assert labels is not None
        assert labels.tolist() == loaded.target[part.numbers.numpy()].tolist()
        levels = part.images[:, 0].numpy() * (16 / 255)  # half a step of 255 is a thirtieth of a level
        np.testing.assert_allclose(levels, loaded.images[part.numbers.numpy()], atol=1 / 30)
    assert int(digits().pretrain.images.max()) == 255  # type: ignore[attr-defined]


def test_parts_are_stratified_and_apart() -> None:
    splits = digits()
    pretrain, probe, validation, test = (numbers(part) for part in splits[:4])
    assert pretrain < probe
    assert not probe & validation
    assert not (probe | validation) & test
    assert len(probe | validation | test) == 1797
    for part, per_class in ((splits.validation, 20), (splits.test, 40)):
        assert part is not None
        labels = part.labels()
        assert labels is not None
        assert torch.bincount(labels).tolist() == [per_class] * 10


def test_the_tail_is_another_digit_for_another_seed() -> None:
    counts = [digits(seed=seed).train_counts() for seed in range(4)]
    assert [sorted(count or []) for count in counts] == [[5, 7, 11, 15, 21, 30, 41, 58, 81, 114]] * 4
    assert len({tuple(count or []) for count in counts}) == 4


def test_the_same_seed_gives_the_same_images_in_the_same_order() -> None:
    first, again = digits(seed=3).pretrain, digits(seed=3).pretrain
    assert isinstance(first, ArraySource)
    assert isinstance(again, ArraySource)
    assert first.numbers.equal(again.numbers)


def test_the_images_of_every_part_never_change() -> None:
    """Results are compared across versions: the parts of seed 0 are fixed for good."""
    parts = [part.numbers.numpy().astype("<i8") for part in digits()[:4] if isinstance(part, ArraySource)]
    assert [zlib.crc32(part.tobytes()) for part in parts] == [1986379053, 137968547, 3180851868, 3465393500]


def test_imbalance_1_is_balanced() -> None:
    assert digits(imbalance=1).train_counts() == [114] * 10


def test_validation_may_be_left_out_and_test_may_not() -> None:
    assert digits(validation_per_class=0).validation is None
    with pytest.raises(InputError, match="0 test images"):
        digits(test_per_class=0)
    with pytest.raises(InputError, match="leaves none of class 8"):
        digits(test_per_class=174)
