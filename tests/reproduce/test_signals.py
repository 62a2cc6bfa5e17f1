"""Signals of a tiny run's checkpoints, measured, measured again and added to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from evensphere.diagnosis.look import Revisited
from evensphere.errors import InputError
from evensphere.metrics.signals import rank_me
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.reproduce.choice import read_signals
from evensphere.reproduce.signals import measure
from evensphere.rundir import RunDir

TINY = ["epochs=3", "backbone.width=4", "batch_size=64", "evaluate_every=3 epochs", "snapshot_every=1 epoch"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The arm gh, and a balanced run of the same seed, in one folder; and one that was never finished."""
    folder = tmp_path_factory.mktemp("runs")
    train(get_recipe("digits-lt", "base").set(TINY), folder / "base-seed0")
    train(
        get_recipe("digits-lt", "base").set([*TINY, "data.imbalance=1", "data.largest=37"]), folder / "balanced-seed0"
    )
    shutil.copytree(folder / "base-seed0", folder / "killed-seed0")
    (folder / "killed-seed0" / "encoder.safetensors").unlink()
    return folder


def test_every_checkpoint_is_measured_once(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "results" / "signals.jsonl"
    first = measure([runs / "base-seed0"], out)
    before = out.read_bytes()
    both = measure([runs], out)
    assert out.read_bytes().startswith(before)
    assert [(line["run"], line["epoch"], line["last"]) for line in read_signals(out)] == [
        (run, epoch, epoch == 3) for run in ("balanced-seed0", "base-seed0") for epoch in (1, 2, 3)
    ]
    assert len(first) == 3
    assert len(both) == 6
    for line in both:
        assert all(isinstance(value, int | float) for value in line["signals"].values())
        assert (
            {"many", "medium", "few", "average"}
            == line["accuracies"]["knn"].keys()
            == line["accuracies"]["probe"].keys()
        )
    assert measure([runs], out) == read_signals(out), "nothing is measured twice"


def test_signals_are_those_of_the_checkpoints_own_features(runs: Path, tmp_path: Path) -> None:
    lines = measure([runs / "base-seed0"], tmp_path / "signals.jsonl")
    seen = Revisited(RunDir(runs / "base-seed0")).at(lines[1]["step"])
    assert lines[1]["signals"]["rank_me_features"] == pytest.approx(rank_me(seen.features))
    events = [json.loads(text) for text in (runs / "base-seed0" / "metrics.jsonl").read_text().splitlines()]
    losses = [event["ssl"] for event in events if event["event"] == "step" and event["epoch"] == 1]
    assert lines[1]["signals"]["loss"] == pytest.approx(sum(losses) / len(losses))
    assert len({line["signals"]["rank_me_features"] for line in lines}) == 3, "the network changes"


def test_a_balanced_runs_few_are_those_of_the_long_tailed_one(runs: Path, tmp_path: Path) -> None:
    """Its own classes are all equal, so its densities are held against the sizes that they have elsewhere."""
    lines = {line["run"]: line for line in measure([runs], tmp_path / "signals.jsonl") if line["last"]}
    balanced, base = (lines[name]["classes"] for name in ("balanced-seed0", "base-seed0"))
    assert balanced["class_skew"] == pytest.approx(0, abs=1e-6)
    assert base["class_skew"] > 0.3
    assert balanced["density"] is not None
    assert balanced["few_in_all"] == pytest.approx(30, abs=1), "3 of 10 equal classes"
    assert base["few_in_all"] < 10


def test_looking_changes_nothing_and_is_the_same_twice(runs: Path) -> None:
    run = RunDir(runs / "base-seed0")
    files = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    first, second = (Revisited(run).at(run.checkpoint_steps()[-1]) for _ in range(2))
    assert torch.equal(first.features, second.features)
    assert first.views is not None
    assert second.views is not None
    assert torch.equal(first.views, second.views)
    assert files == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folder"):
        measure([tmp_path], tmp_path / "signals.jsonl")
