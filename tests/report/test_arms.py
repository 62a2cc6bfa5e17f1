"""Runs that differ only in their seed are one arm, and only those."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.fake_runs import Json, make_run, results, said, with_images

from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.report.arms import BEFORE_THERE_WAS_A_CHOICE, group_arms, main_metric, spread
from evensphere.report.page import render_page
from evensphere.report.record import read_runs


def test_seeds_are_grouped_and_order_does_not_matter(six: list[Path]) -> None:
    for folders in (six, six[::-1]):
        arms = group_arms(read_runs(folders))
        assert [(arm.kind, [run.recipe["seed"] for run in arm.runs]) for arm in arms] == [
            ("base", [0, 1, 2]),
            ("gh", [0, 1, 2]),
        ]
        few = arms[1].spread("probe", "few")
        assert few is not None
        assert (few.mean, few.std, few.seeds) == (44.0, 1.0, 3)


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(tmp_path: Path) -> None:
    heavy = {"name": "gh", "options": {"weight": 2.0}}
    make_run(tmp_path / "a", seed=0, eval_json=results(40))
    make_run(tmp_path / "b", seed=1, eval_json=results(50), harmonizer=heavy, workers=9)
    arms = group_arms(read_runs([tmp_path / "a", tmp_path / "b"]))
    assert [arm.label for arm in arms] == ["with GH, harmonizer.weight=1.0", "with GH, harmonizer.weight=2.0"]
    assert len({arm.look.color for arm in arms}) == 2


def test_how_a_run_was_watched_and_kept_makes_no_arm(tmp_path: Path) -> None:
    watched: list[Json] = [
        {"storage": "memory", "checkpoint_every": "1 epochs"},
        {"storage": "cache", "monitor": ["knn"], "snapshot_every": None},
        {"storage": "device", "keep_checkpoints": 5, "metrics": ["knn"], "evaluate_every": "3 epochs"},
    ]
    for seed, options in enumerate(watched):
        with_images(make_run(tmp_path / str(seed), seed=seed, eval_json=results(40), **options))
    (arm,) = group_arms(read_runs(sorted(tmp_path.iterdir())))
    assert len(arm.runs) == 3
    with_images(make_run(tmp_path / "3", seed=3, eval_json=results(40), storage="files"))
    labels = [arm.label for arm in group_arms(read_runs(sorted(tmp_path.iterdir())))]
    assert labels == ["with GH, storage=decoded once", "with GH, storage=files"]


def test_how_the_path_was_typed_makes_no_arm(tmp_path: Path) -> None:
    for seed, path in enumerate(("photos", "./photos/", "/elsewhere/photos")):
        make_run(tmp_path / str(seed), seed=seed, data={"name": "folder", "options": {"path": path}})
    assert len(group_arms(read_runs(sorted(tmp_path.iterdir())))) == 1
    make_run(tmp_path / "3", seed=3, data={"name": "folder", "options": {"path": ["photos", "others"]}})
    assert len(group_arms(read_runs(sorted(tmp_path.iterdir())))) == 2


def test_folders_of_one_name_and_size_are_told_apart_by_their_images(tmp_path: Path) -> None:
    """And images that moved, or were listed in another order, are the same."""
    cats, dogs = ("tom.jpg", "felix.jpg"), ("rex.jpg", "fido.jpg")
    lie = {"0": ("/data/cats/train", cats), "1": ("/data/dogs/train", dogs), "2": ("/scratch/train", cats[::-1])}
    for name, (path, images) in lie.items():
        data = {"name": "folder", "options": {"path": path, "seed": int(name)}}
        with_images(make_run(tmp_path / name, seed=int(name), eval_json=results(40), data=data), *images)
    arms = group_arms(read_runs(sorted(tmp_path.iterdir())))
    assert [[run.recipe["seed"] for run in arm.runs] for arm in arms] == [[0, 2], [1]]
    assert len({arm.label for arm in arms}) == 2
    assert "train (1234 images, list " in arms[0].label


@pytest.mark.parametrize("name", ["flowers102", "own.code:photos"])
def test_seeds_that_draw_images_of_their_own_are_one_arm(tmp_path: Path, name: str) -> None:
    for seed in range(3):
        data = {"name": name, "options": {"path": "/data/flowers", "imbalance": 100, "seed": seed}}
        with_images(make_run(tmp_path / str(seed), seed=seed, eval_json=results(40), data=data), f"{seed}.jpg")
    assert len(group_arms(read_runs(sorted(tmp_path.iterdir())))) == 1


def test_a_damaged_list_of_images_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", data={"name": "folder", "options": {"path": "photos"}})
    (run / "images.json").write_text('{"images": 3}')
    (record,) = read_runs(run)
    assert (record.images, record.problems) == ("", ["images.json is damaged and was not used."])


def test_a_setting_of_a_later_version_makes_no_arm(tmp_path: Path) -> None:
    """An array is in memory, whatever an old recipe, or a wish, says of storage."""
    make_run(tmp_path / "old", seed=0, eval_json=results(40))
    later: Json = {"storage": "memory", "near_duplicates": "each", "micro_batches": 1, "compile": False}
    make_run(tmp_path / "new", seed=1, eval_json=results(41), **later)
    make_run(tmp_path / "wish", seed=2, eval_json=results(42), **later | {"storage": "files"})
    (arm,) = group_arms(read_runs(sorted(tmp_path.iterdir())))
    assert len(arm.runs) == 3


def test_what_old_recipes_mean_by_their_silence_is_what_a_recipe_reads_there(tmp_path: Path) -> None:
    whole = get_recipe("digits-lt").to_json()
    silent = {name: value for name, value in whole.items() if name not in BEFORE_THERE_WAS_A_CHOICE}
    read = asdict(Recipe.from_json(silent))
    assert {name: read[name] for name in BEFORE_THERE_WAS_A_CHOICE} == BEFORE_THERE_WAS_A_CHOICE


def test_an_option_of_a_later_version_makes_no_arm(tmp_path: Path) -> None:
    make_run(tmp_path / "old", seed=0, eval_json=results(40))
    make_run(tmp_path / "new", seed=1, eval_json=results(41), method={"name": "simclr", "options": {"later": None}})
    make_run(tmp_path / "too", seed=2, eval_json=results(42), method={"name": "simclr", "options": {}}, init=None)
    arms = group_arms(read_runs(sorted(tmp_path.iterdir())))
    assert len({arm.label for arm in arms}) == len(arms)


def test_runs_of_one_folder_name_are_told_apart(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / arm / "seed0", arm, 0, results(40)) for arm in ("gh", "base")]
    assert [run.label for run in read_runs(folders)] == ["gh/seed0", "base/seed0"]
    assert [run.label for run in read_runs(folders[:1])] == ["seed0"]
    for folder, sentence in zip(folders, ("It climbs.", "It falls."), strict=True):
        finding = {"name": "x", "title": "Loss", "level": "warning", "sentence": sentence, "advice": ""}
        (folder / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    html = render_page(read_runs(folders))
    assert "It climbs." in html
    assert "It falls." in html


def test_a_seed_counts_once(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name, seed=7, eval_json=results(40)) for name in ("a", "b")]
    assert len(read_runs([folders[0], folders[0] / ".." / "a"])) == 1
    assert "b: same recipe and seed as another run, counted once." in said(folders)
    assert "with GH (1 seed)" in said(folders)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = spread([*values, None])
    assert found is not None
    assert found.std is not None
    np.testing.assert_allclose([found.mean, found.std], [np.mean(values), np.std(values, ddof=1)], atol=1e-9)


def test_the_main_metric_scored_every_arm(tmp_path: Path) -> None:
    make_run(tmp_path / "a", "base", 0, results(40))
    make_run(tmp_path / "b", "gh", 0, {key: value for key, value in results(40).items() if key != "probe"})
    assert main_metric(group_arms(read_runs(tmp_path / "a"))) == "probe"
    assert main_metric(group_arms(read_runs([tmp_path / "a", tmp_path / "b"]))) == "knn"


def test_the_seed_of_the_data_is_a_seed_too(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path / str(seed), seed=seed, eval_json=results(40), data={"name": "d", "options": {"seed": seed}})
    (arm,) = group_arms(read_runs([tmp_path / str(seed) for seed in range(3)]))
    assert len(arm.runs) == 3
