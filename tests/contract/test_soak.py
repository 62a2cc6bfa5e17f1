"""Every method on CIFAR-100-LT for three epochs, with GH and without; the outcome goes to docs/log.md.

EVENSPHERE_DATA=path/to/cifar pytest -m soak -s tests/contract/test_soak.py
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from tests.contract.test_methods import RATES, WEIGHTS

from evensphere.methods import METHODS
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif("EVENSPHERE_DATA" not in os.environ, reason="EVENSPHERE_DATA says where CIFAR-100 lies"),
]

BCL_VIEWS = ["views.interpolation=bicubic"]


def three_epochs(arm: str, name: str = "simclr") -> Recipe:
    """GH acts at full weight from the second epoch on."""
    rate = 0.25 * RATES.get(name, 0.3) / 0.3  # the digits' rates, in proportion to this recipe's
    settings = [f"method={name}", "epochs=3", "evaluate_every=3 epochs", f"schedule.learning_rate={rate}"]
    settings += BCL_VIEWS if name == "bcl" else []
    if arm == "gh":
        settings += ["harmonizer.warm_up=1 epoch", "harmonizer.ramp=0", f"harmonizer.weight={WEIGHTS.get(name, 1.0)}"]
        settings += ["schedule.stage_change=1 epoch", f"schedule.middle={0.6 * rate}"]
    return get_recipe("cifar100-lt-small", arm).set(settings)


def outcome(run: RunDir, title: str) -> str:
    """A row for the log; fails where a loss is no number or GH did not act."""
    events = run.read_metrics()
    steps = [event for event in events if event["event"] == "step"]
    accuracy = [event["knn"] for event in events if event["event"] == "evaluation"][-1]
    assert all(math.isfinite(event["loss"]) for event in steps)
    gh = f"{steps[-1]['gh']:.2f}" if "gh" in steps[-1] else "-"
    minutes = (run.train_seconds() or 0) / 60
    return f"| {title} | {steps[0]['ssl']:.3f} | {steps[-1]['ssl']:.3f} | {gh} | {accuracy:.1f} | {minutes:.1f} |"


@pytest.mark.parametrize("arm", ["base", "gh"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, arm: str, tmp_path: Path) -> None:
    run = RunDir(train(three_epochs(arm, name), tmp_path / "run"))
    assert arm == "base" or any(event.get("gh_weight", 0) > 0 for event in run.read_metrics())
    print("\n" + outcome(run, f"{name}, {arm}"))


@pytest.mark.parametrize("arm", ["base", "gh"])
def test_dnc(arm: str, tmp_path: Path) -> None:
    settings = ["stages=dnc", "stages.clusters=2", "stages.base=0.34", "stages.experts=0.34", "schedule.warm_up=0.0"]
    settings += ["harmonizer.warm_up=0", "schedule.stage_change=0.0"] if arm == "gh" else []
    run = RunDir(train(three_epochs(arm).set(settings), tmp_path / "run"))
    print("\n" + outcome(run, f"dnc, {arm}"))


@pytest.mark.parametrize("arm", ["base", "gh"])
def test_rwsam(arm: str, tmp_path: Path) -> None:
    first = train(three_epochs("base"), tmp_path / "first")
    settings = ["optimizer=rwsam", f"optimizer.pretrained={first}"]
    run = RunDir(train(three_epochs(arm).set(settings), tmp_path / "run"))
    print("\n" + outcome(run, f"rwsam, {arm}"))
