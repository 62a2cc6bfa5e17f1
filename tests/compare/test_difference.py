"""Differences of runs whose predictions are known, against what can be counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.compare.fake_arms import LABELS, scored_run

from evensphere.compare import compare
from evensphere.errors import InputError


def two_arms(tmp_path: Path, gh: dict[int, list[int]], base: dict[int, list[int]]) -> list[Path]:
    runs = [scored_run(tmp_path / f"gh{seed}", "gh", seed, wrong) for seed, wrong in gh.items()]
    return runs + [scored_run(tmp_path / f"base{seed}", "base", seed, wrong) for seed, wrong in base.items()]


def test_one_seed_by_hand(tmp_path: Path) -> None:
    """GH is right on two okapis more (of 4) and wrong on a dog more (of 8)."""
    found = compare(two_arms(tmp_path, {0: [0, 8]}, {0: [8, 14, 15]}))
    few, many, medium, average = (found.groups[name] for name in ("few", "many", "medium", "average"))
    assert (few.first, few.second, few.change.estimate) == (100, 50, 50)
    assert (many.first, many.change.estimate) == (87.5, -12.5)
    assert medium.change == (0, 0, 0)
    assert average.change.estimate == pytest.approx((50 - 12.5) / 3)
    assert few.p == 0.5, "two images, both for GH: 2 of 4 patterns of signs are as extreme"
    assert many.p == medium.p == 1
    changes = 100 * np.array([1, 1, 0, 0]) / 4
    half = 1.959964 * np.sqrt(4 / 3 * ((changes - changes.mean()) ** 2).sum())
    assert (few.change.low, few.change.high) == pytest.approx((50 - half, 50 + half))
    assert found.images == 18
    assert found.sentence == (
        "With GH against without GH: few +50.0 [-6.6, 106.6], medium +0.0 [0.0, 0.0], many -12.5 [-37.0, 12.0], "
        "average +12.5 [-8.1, 33.1] points, 1 seed."
    )
    assert any("One seed" in caution for caution in found.cautions)


def test_the_first_run_is_minuend_and_swapping_changes_signs_alone(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: [0], 1: [0, 14]}, {0: [14, 15], 1: [8, 14, 15]})
    one, other = compare(runs), compare(runs[::-1])
    assert one.sides.names == other.sides.names[::-1] == ("with GH", "without GH")
    for name, difference in one.groups.items():
        swapped = other.groups[name]
        assert difference.change.estimate == pytest.approx(-swapped.change.estimate)
        assert (difference.change.low, difference.p) == pytest.approx((-swapped.change.high, swapped.p))


def test_seeds_are_paired_whatever_their_order(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: [0], 1: [1], 2: [14]}, {2: [14, 15], 0: [0, 1], 1: [1, 2]})
    found = compare(runs)
    assert found.sides.seeds == [0, 1, 2]
    assert [found.groups[name].change.estimate for name in ("many", "few")] == pytest.approx([200 / 24, 100 / 12])
    by_option = compare(first=[runs[2]], second=[runs[3]], runs=[runs[0], runs[1], runs[4], runs[5]])
    assert by_option == found, "a shell spells --a runs/gh* as one --a and folders that follow"


def test_seeds_with_images_of_their_own(tmp_path: Path) -> None:
    runs = []
    for seed, (mine, theirs) in enumerate([([14], [14, 15]), ([14], [14, 15, 16]), ([], [17])]):
        runs.append(scored_run(tmp_path / f"gh{seed}", "gh", seed, mine, images=f"seed{seed}-"))
        runs.append(scored_run(tmp_path / f"base{seed}", "base", seed, theirs, images=f"seed{seed}-"))
    few = compare(runs).groups["few"].change
    differences = np.array([25.0, 50.0, 25.0])
    half = 4.302653 * differences.std(ddof=1) / np.sqrt(3)  # Student's t with 2 degrees of freedom
    assert few == pytest.approx((differences.mean(), differences.mean() - half, differences.mean() + half))


def test_json_holds_everything(tmp_path: Path) -> None:
    found = compare(two_arms(tmp_path, {0: [0]}, {0: [14]}))
    content = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert content["groups"]["few"]["difference"] == 25
    assert content["groups"]["few"]["interval"] == [found.groups["few"].change.low, found.groups["few"].change.high]
    assert content["differing"]["harmonizer.name"] == ["gh", "none"]
    assert content["sentence"] == found.sentence
    assert content["a"]["runs"] == [str(tmp_path / "gh0")]


def test_runs_scored_on_different_images_are_refused(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / "a", "gh", 0, []), scored_run(tmp_path / "b", "base", 0, [], images="other")]
    with pytest.raises(InputError, match="different images or labels"):
        compare(runs)


def test_runs_without_predictions_are_told_what_to_do(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: []}, {0: []})
    with pytest.raises(InputError, match="--split validation` once more"):
        compare(runs, split="validation")
    (runs[1] / "predictions.parquet").unlink()
    with pytest.raises(InputError, match=r"run `evensphere evaluate .*base0` once more"):
        compare(runs)


def test_validation_images_are_compared_by_what_was_said_of_them(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: [14]}, {0: [14, 15]})
    for run in runs:
        (run / "eval.json").rename(run / "validation.json")
        (run / "predictions.parquet").rename(run / "validation-predictions.parquet")
    assert compare(runs, split="validation").groups["few"].change.estimate == 25


def test_runs_scored_on_different_classes_are_refused(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: []}, {0: []})
    content = json.loads((runs[1] / "eval.json").read_text())
    (runs[1] / "eval.json").write_text(json.dumps(content | {"classes": ["dog", "cat", "yak"]}))
    with pytest.raises(InputError, match="different classes"):
        compare(runs)


def test_runs_scored_by_different_metrics_are_refused(tmp_path: Path) -> None:
    runs = [scored_run(tmp_path / "a", "gh", 0, []), scored_run(tmp_path / "b", "base", 0, [], metric="knn")]
    with pytest.raises(InputError, match="shared are: none"):
        compare(runs)
    with pytest.raises(InputError, match="--metric knn"):
        compare(runs, metric="knn")


def test_a_group_without_test_images_is_left_out(tmp_path: Path) -> None:
    runs = two_arms(tmp_path, {0: [0]}, {0: [1]})
    for run in runs:
        content = json.loads((run / "eval.json").read_text())
        content |= {
            "classes": ["dog", "cat", "okapi", "yak"],
            "train_counts": [200, 150, 120, 3],
            "group_rule": "shots",
        }
        (run / "eval.json").write_text(json.dumps(content))
    assert list(compare(runs).groups) == ["many", "average"], "yak, the only rare class, has no image"
    assert len(LABELS) == 18
