"""Many, medium, few: the reference code's numbers, ties, small and odd numbers of classes, bad input."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evensphere.errors import InputError
from evensphere.metrics.groups import GROUPS, RULES, class_groups, group_accuracy

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "groups.npz")

counts_lists = st.lists(st.integers(0, 300), min_size=1, max_size=40)
accuracies = st.floats(0, 100)


@pytest.mark.parametrize(("data", "rule"), [("cifar", "thirds"), ("imagenet", "shots")])
def test_equals_the_reference_code(data: str, rule: str) -> None:
    per_class = GOLDEN[f"per_class_accuracy_{data}"]
    got = group_accuracy(per_class, GOLDEN[f"counts_{data}"], rule)
    three = GOLDEN[f"many_medium_few_{data}"]
    assert [got[name] for name in GROUPS] == pytest.approx(three, rel=1e-12)
    assert got["std"] == pytest.approx(float(GOLDEN[f"group_std_{data}"]), rel=1e-12)
    assert got["std_sample"] == pytest.approx(np.std(three, ddof=1), rel=1e-12)
    assert got["average"] == pytest.approx(per_class.mean(), rel=1e-12)


@pytest.mark.parametrize(
    ("num_classes", "sizes"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (4, 3, 3)), (100, (34, 33, 33))],
)
def test_the_remainder_goes_to_many(num_classes: int, sizes: tuple[int, int, int]) -> None:
    groups = class_groups(range(num_classes, 0, -1))
    assert groups == ["many"] * sizes[0] + ["medium"] * sizes[1] + ["few"] * sizes[2]


def test_shots_borders() -> None:
    assert class_groups([101, 100, 20, 19, 0], "shots") == ["many", "medium", "medium", "few", "few"]


def test_of_equal_counts_the_lower_class_ranks_first() -> None:
    assert class_groups([7] * 6) == ["many", "many", "medium", "medium", "few", "few"]
    assert class_groups([5, 9, 5, 9, 5, 9]) == ["medium", "many", "few", "many", "few", "medium"]


def test_average_weighs_classes_not_groups() -> None:
    got = group_accuracy([90.0, 80.0, 40.0, 10.0], [40, 30, 20, 10])
    assert got == {
        "many": 85.0,
        "medium": 40.0,
        "few": 10.0,
        "std": pytest.approx(np.std([85, 40, 10])),
        "std_sample": pytest.approx(np.std([85, 40, 10], ddof=1)),
        "average": 55.0,
    }


def test_an_empty_group_is_none_and_so_are_the_spreads() -> None:
    got = group_accuracy([50.0, 70.0], [500, 10], "shots")
    assert got == {"many": 50.0, "medium": None, "few": 70.0, "std": None, "std_sample": None, "average": 60.0}


def test_a_class_without_test_images_keeps_its_place_but_enters_no_mean() -> None:
    got = group_accuracy([90.0, None, 30.0, 10.0, None, 6.0], [60, 50, 40, 30, 20, 10])
    assert (got["many"], got["medium"], got["few"], got["average"]) == (90.0, 20.0, 6.0, 34.0)
    assert group_accuracy([90.0, 30.0, None], [30, 20, 10])["few"] is None


def test_lists_arrays_and_tensors_are_alike() -> None:
    per_class, counts = [90.0, 20.5, 10.0], [100, 10, 50]
    expected = group_accuracy(per_class, counts)
    assert group_accuracy(torch.tensor(per_class), torch.tensor(counts)) == expected
    assert group_accuracy(np.array(per_class), np.array(counts)) == expected


@given(data=st.data(), counts=counts_lists, rule=st.sampled_from(RULES))
def test_renumbering_the_classes_changes_no_group(data: st.DataObject, counts: list[int], rule: str) -> None:
    order = data.draw(st.permutations(range(len(counts))))
    before, after = class_groups(counts, rule), class_groups([counts[c] for c in order], rule)
    moved = [before[c] for c in order]
    # which of several equally frequent classes stands on which side of a border is a matter of their numbers
    assert sorted(zip((counts[c] for c in order), after, strict=True)) == sorted(
        zip((counts[c] for c in order), moved, strict=True)
    )
    if len(set(counts)) == len(counts):
        assert after == moved


@given(counts=counts_lists, rule=st.sampled_from(RULES))
def test_groups_follow_the_counts(counts: list[int], rule: str) -> None:
    groups = class_groups(counts, rule)
    held = [[n for n, group in zip(counts, groups, strict=True) if group == name] for name in GROUPS]
    for more, fewer in pairwise(part for part in held if part):
        assert min(more) >= max(fewer)
    assert sum(map(len, held)) == len(counts)


@given(data=st.data(), counts=counts_lists, rule=st.sampled_from(RULES))
def test_average_is_the_groups_weighted_by_their_classes(data: st.DataObject, counts: list[int], rule: str) -> None:
    per_class = data.draw(st.lists(accuracies, min_size=len(counts), max_size=len(counts)))
    got, groups = group_accuracy(per_class, counts, rule), class_groups(counts, rule)
    weighted = sum((got[name] or 0.0) * groups.count(name) for name in GROUPS) / len(counts)
    assert got["average"] == pytest.approx(weighted, abs=1e-9)
    if got["std"] is not None and got["std_sample"] is not None:
        assert got["std_sample"] == pytest.approx(got["std"] * 1.5**0.5, abs=1e-9)
    else:
        assert len(set(groups)) < len(GROUPS)


@pytest.mark.parametrize(
    ("per_class", "counts", "rule", "message"),
    [
        ([50.0], [1, 2], "thirds", "per_class has 1 classes but train_counts has 2"),
        ([], [], "thirds", "train_counts is empty"),
        ([], [3], "thirds", "per_class has 0 classes"),
        ([float("nan")], [3], "thirds", "per_class holds nan"),
        ([50.0], [float("inf")], "thirds", "train_counts holds inf"),
        ([50.0, 60.0], [3, -1], "shots", "train_counts holds -1; a class cannot"),
        ([50.0], [3], "third", "Unknown group rule 'third'; did you mean 'thirds'"),
        ([None, None], [3, 4], "thirds", "no accuracy at all"),
        (torch.zeros(2, 2), [3, 4], "thirds", "not one number"),
    ],
)
def test_bad_input_is_one_sentence(per_class: list[float], counts: list[int], rule: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        group_accuracy(per_class, counts, rule)
    assert "\n" not in str(error.value)


def test_groups_and_the_list_of_metrics_load_no_torch() -> None:
    code = "import sys, evensphere.metrics.groups; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
