"""A method's twin and queue outlive a stop: a run that stopped, or that branches off, equals one that never did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

METHODS = {
    "moco": ("method.queue_size=100", "method.symmetric=true", "method.momentum=0.9"),
    "byol": ("method.hidden_dim=32", "method.momentum=0.9"),
}


def tiny(method: str, arm: str = "gh") -> Recipe:
    """Two epochs of three steps, GH in the second; checkpoints after 2, 3 (the warm-up's end), 4 and 6."""
    run = ("epochs=2", "backbone.width=4", "checkpoint_every=2 steps", "evaluate_every=2 epochs")
    return get_recipe("digits-lt", arm).set([f"method={method}", "method.embedding_dim=16", *METHODS[method], *run])


@pytest.fixture(scope="module", params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(method: str, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(tiny(method), tmp_path_factory.mktemp("whole") / "run"))


def everything(run: RunDir) -> tuple[bytes, bytes, list[tuple[str, object]]]:
    """Encoder and metrics as bytes, and every leaf of the last checkpoint."""
    found: list[tuple[str, object]] = []

    def walk(state: object, path: str) -> None:
        if isinstance(state, dict):
            for key, value in state.items():
                walk(value, f"{path}/{key}")
        else:
            found.append((path, state.tolist() if isinstance(state, torch.Tensor) else state))

    walk(torch.load(run.checkpoint_file(run.checkpoint_steps()[-1]), weights_only=True), "")
    return run.encoder_file.read_bytes(), run.metrics_file.read_bytes(), found


def test_a_run_that_stopped_equals_one_that_never_did(method: str, whole: RunDir, tmp_path: Path) -> None:
    never = everything(whole)
    parts = {path.split("/")[2].split(".")[1] for path, _ in never[2] if path.startswith("/model/method.")}
    assert parts & {"twin", "queue"}, "the checkpoint holds them"
    last = whole.checkpoint_steps()[-1]
    whole.checkpoint_file(last).unlink()  # as if it had been stopped just before
    whole.encoder_file.unlink()
    assert whole.checkpoint_steps()[-1] < last
    train(tiny(method), whole.path, resume=True)
    assert everything(whole) == never


def test_a_branch_equals_the_run_it_would_have_been(method: str, whole: RunDir, tmp_path: Path) -> None:
    alone = RunDir(train(tiny(method, "two-stage"), tmp_path / "alone"))
    branch = RunDir(train(tiny(method, "two-stage"), tmp_path / "branch", branch=whole.path))
    assert everything(branch) == everything(alone)
