"""What an earlier version wrote is read by this one. A new format gets a folder of its own beside these, and they stay.

tests/golden/run-format-1 was written by version 0.1.0 (commit 8b45a14): digits, SimCLR with GH, 6 epochs of 4 steps; of
its checkpoints the one in the middle is kept, which is after GH's ramp has begun.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evensphere.engine.checkpoint import FORMAT
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.report import write_report
from evensphere.rundir import RunDir

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(params=sorted(GOLDEN.glob("run-format-*")), ids=lambda folder: folder.name)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> RunDir:
    return RunDir(shutil.copytree(request.param, tmp_path / "run"))


def test_there_is_a_run_of_every_format() -> None:
    assert {folder.name for folder in GOLDEN.glob("run-format-*")} == {f"run-format-{i + 1}" for i in range(FORMAT)}


def test_a_run_goes_on_from_an_old_checkpoint_as_it_once_did(old: RunDir) -> None:
    once = [event for event in old.read_metrics() if event["event"] in ("step", "population")]
    (begin,) = old.checkpoint_steps()
    old.encoder_file.unlink()
    train(Recipe.from_json(old.read_recipe()), old.path, resume=True)
    now = [event for event in old.read_metrics() if event["event"] in ("step", "population")]
    assert [(event["event"], event["step"]) for event in now] == [(event["event"], event["step"]) for event in once]
    assert len([event for event in now if event["step"] >= begin and event.get("gh_weight")]) >= 10
    for event, earlier in zip(now, once, strict=True):
        if event["event"] == "step":  # to what another CPU's order of sums makes of twelve steps
            assert event["loss"] == pytest.approx(earlier["loss"], rel=0.02), event["step"]
    assert now[len(now) // 2 + 1]["loss"] == pytest.approx(once[len(now) // 2 + 1]["loss"], rel=1e-4)


def test_an_old_encoder_scores_what_it_did(old: RunDir) -> None:
    once = json.loads(old.evaluation_file.read_text())
    old.evaluation_file.unlink()
    now = evaluate(old.path)
    for metric in ("knn", "knn_untrained"):
        assert now[metric]["average"] == pytest.approx(once[metric]["average"], abs=1.0)
    assert now["groups"] == once["groups"]


def test_an_old_run_is_reported(old: RunDir) -> None:
    assert "Did the rare things survive?" in write_report(old.path).read_text()
