"""Trackers are told what metrics.jsonl says: all of it, once, and at no risk to the run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from evensphere.engine import trackers
from evensphere.engine.trackers import TRACKERS, check_trackers, tracked
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

Told = list[tuple[int, dict[str, float]]]
STEP = {"event": "step", "step": 4, "epoch": 1, "loss": 2.5, "lr": 0.1}


class Ear:
    """A tracker that remembers."""

    def __init__(self, run: RunDir) -> None:
        self.told: Told = []
        self.closed = False
        EARS.append(self)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self.told.append((step, dict(scalars)))

    def close(self) -> None:
        self.closed = True


EARS: list[Ear] = []


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> list[Ear]:
    EARS.clear()
    monkeypatch.setattr(trackers, "_EVERY", 0.02)
    monkeypatch.setitem(trackers._PACKAGES, "ear", "json")
    monkeypatch.setitem(TRACKERS, "ear", Ear)
    return EARS


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    folder = RunDir(tmp_path)
    folder.recipe_file.write_text("{}")
    return folder


def test_every_kind_of_scalar_is_told(ear: list[Ear], run: RunDir) -> None:
    with tracked(run, ["ear"], Console(quiet=True)):
        run.append_metrics(STEP)
        run.append_metrics({"event": "population", "step": 4, "epoch": 1, "prior": [0.5, 0.5, 0.0]})
        run.append_metrics({"event": "evaluation", "step": 4, "epoch": 1, "knn": 31.0, "probe": None})
        run.append_metrics({"event": "step", "step": 5, "epoch": 1, "loss": float("nan"), "lr": 0.2})
        run.append_metrics({"event": "warning", "step": 5, "epoch": 1, "kind": "collapse", "sentence": "..."})
    assert ear[0].told == [
        (4, {"train/loss": 2.5, "train/lr": 0.1}),
        (4, {"regions/effective": pytest.approx(2.0)}),
        (4, {"validation/knn": 31.0}),
        (5, {"train/lr": 0.2}),
    ]
    assert ear[0].closed


def test_what_a_resumed_run_takes_back_is_not_told(ear: list[Ear], run: RunDir) -> None:
    for step in range(10):
        run.append_metrics(STEP | {"step": step})
        if step == 5:
            kept = run.metrics_size()
    with tracked(run, ["ear"], Console(quiet=True)):
        run.truncate_metrics(kept)
        for step in range(6, 12):
            run.append_metrics(STEP | {"step": step})
    assert [step for step, _ in ear[0].told] == list(range(12))


def test_a_tracker_that_fails_ends_no_training(
    ear: list[Ear], run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no line")

    monkeypatch.setattr(Ear, "log", fail)
    with tracked(run, ["ear"], Console()):
        run.append_metrics(STEP)
    assert capsys.readouterr().out == "ear is told no more: RuntimeError: no line.\n"
    assert ear[0].closed


def test_no_run_no_tracker(ear: list[Ear], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="refused"), tracked(RunDir(tmp_path), ["ear"], Console(quiet=True)):
        raise InputError("refused before anything was written")
    assert not ear
    assert not list(tmp_path.iterdir())


def test_who_is_unknown_or_not_installed_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--track mlflow was given; choose from tensorboard, wandb"):
        check_trackers(["mlflow"])
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'evensphere\[tensorboard\]'"):
        check_trackers(["tensorboard"])


def test_tensorboard_shows_the_run_and_the_bits_stay(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = get_recipe("digits-lt").set(["epochs=1", "data.largest=40"])
    plain = RunDir(train(recipe, tmp_path / "plain"))
    told = RunDir(train(recipe, tmp_path / "told", trackers=["tensorboard"]))
    assert told.metrics_file.read_bytes() == plain.metrics_file.read_bytes()
    assert told.encoder_file.read_bytes() == plain.encoder_file.read_bytes()
    shown = EventAccumulator(str(told.path / "tensorboard"))
    shown.Reload()
    steps = [event for event in plain.read_metrics() if event["event"] == "step"]
    assert [scalar.step for scalar in shown.Scalars("train/loss")] == [event["step"] for event in steps]
    assert [scalar.value for scalar in shown.Scalars("train/loss")] == pytest.approx([e["loss"] for e in steps])


def test_weights_and_biases_goes_on_with_the_run_it_knows(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setattr(trackers, "_EVERY", 0.02)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for _ in range(2):
        with tracked(run, ["wandb"], Console()):
            run.append_metrics(STEP)
    identity = json.loads(run.trackers_file.read_text())["wandb"]
    written = [folder.name for folder in (run.path / "wandb").glob("offline-run-*")]
    assert len(written) == 2
    assert all(name.endswith(identity) for name in written)


def test_weights_and_biases_asks_for_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(InputError, match="wandb login"):
        check_trackers(["wandb"])
