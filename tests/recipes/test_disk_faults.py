"""Whatever call to the operating system fails while a run is written, the run goes on and ends with the same bits."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from tests.faults import PowerCut, faulty_disk

from evensphere.disk import DiskError
from evensphere.engine.checkpoint import read_checkpoint
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

# 2 epochs of 3 steps, GH in the second; a checkpoint every 2 steps, an evaluation every epoch, one checkpoint kept
RECIPE = get_recipe("digits-lt").set(
    [
        *("epochs=2", "batch_size=128", "backbone.width=4", "precision=32-true", "views.jitter=[0.4,0.4,0,0]"),
        *("checkpoint_every=2 steps", "evaluate_every=1 epochs", "keep_checkpoints=1"),
    ]
)
FAULTS = ("ENOSPC", "EIO", "partial write", "power cut", "power cut, names lost")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, int]:
    """A run on a healthy disk, and how many calls it made."""
    run = RunDir(tmp_path_factory.mktemp("unbroken") / "run")
    with pytest.MonkeyPatch.context() as patch, faulty_disk(patch) as healthy:
        train(RECIPE, run.path)
    return run, healthy.calls


def state_of(run: RunDir) -> list[object]:
    """All that must be the same bits: metrics, both encoders, and by its checksum the last checkpoint."""
    last = torch.load(run.checkpoint_file(run.checkpoint_steps()[-1]), weights_only=True)
    files = [file.read_bytes() for file in (run.metrics_file, run.encoder_file, run.best_file)]
    return [*files, run.checkpoint_steps(), last["sha256"]]


def fails_and_goes_on(run: RunDir, at: int, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty_disk(monkeypatch, at, fault), pytest.raises((InputError, PowerCut)) as failed:
        train(RECIPE, run.path, resume=True)
    if failed.type is DiskError:
        assert str(run.path) in str(failed.value)
    for step in run.checkpoint_steps():
        read_checkpoint(run, step)  # what was there before is whole
    train(RECIPE, run.path, resume=True)
    assert not list(run.path.rglob("*.part")), "what was half written is gone"
    assert not list(run.path.rglob("*.damaged")), "and nothing had to be passed over"


@pytest.mark.parametrize(("fault", "when"), [(fault, 0.12 + 0.2 * i) for i, fault in enumerate(FAULTS)])
def test_a_disk_that_fails_somewhere_costs_no_run(
    fault: str, when: float, unbroken: tuple[RunDir, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (whole, calls) = RunDir(tmp_path / "run"), unbroken
    fails_and_goes_on(run, int(when * calls), fault, monkeypatch)
    assert state_of(run) == state_of(whole)


def test_a_checkpoint_that_was_not_dropped_is_dropped_later(
    unbroken: tuple[RunDir, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails as the last checkpoint is there and the one before it goes: no step is left that would drop it."""
    whole, _ = unbroken
    run, last = RunDir(tmp_path / "run"), whole.checkpoint_steps()[-1]
    prune = RunDir.prune_checkpoints

    def fail(self: RunDir, keep: int, others: Iterable[int] = ()) -> None:
        if last in self.checkpoint_steps():
            raise DiskError(self.path, OSError(errno.EIO, "input/output error"))
        prune(self, keep, others)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "prune_checkpoints", fail)
        with pytest.raises(DiskError):
            train(RECIPE, run.path)
    assert len(run.checkpoint_steps()) > len(whole.checkpoint_steps())
    train(RECIPE, run.path, resume=True)
    assert state_of(run) == state_of(whole)


@pytest.mark.soak
@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_anywhere_costs_no_run(
    fault: str, unbroken: tuple[RunDir, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = unbroken
    for at in range(calls):
        run = RunDir(tmp_path / f"run{at}")
        fails_and_goes_on(run, at, fault, monkeypatch)
        assert state_of(run) == state_of(whole), f"call {at}"
        print(f"{fault}: {at + 1} of {calls} calls, all runs resumed to the same bits")
