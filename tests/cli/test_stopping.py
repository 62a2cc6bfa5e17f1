"""How commands end when they are told to stop, or when the disk says no; and that the same command goes on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import Signals
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from tests.faults import faulty_disk

from evensphere import disk
from evensphere.cli.main import main
from evensphere.engine import train as engine
from evensphere.errors import InputError
from evensphere.recipes.scoring import evaluate
from evensphere.report import write_report
from evensphere.rundir import RunDir

TINY = ["--set", "epochs=2", "--set", "backbone.width=4", "--set", "checkpoint_every=2 steps"]
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def evensphere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command inside this process: its exit code, and what it said on stderr."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evensphere", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """A shell has what it starts in the background ignore it, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def signal_in_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Signals], pytest.MonkeyPatch]:
    """Have a signal arrive inside a step of the first run that gets there."""

    def arrange(at: int, number: Signals) -> pytest.MonkeyPatch:
        take_step = engine._take_step
        sent: list[bool] = []

        def interrupted(training: Any, step_module: Any, batch: Any, progress: Any, fabric: Any) -> dict[str, Any]:
            if progress.step == at and not sent:
                sent.append(True)
                os.kill(os.getpid(), number)
            return take_step(training, step_module, batch, progress, fabric)

        monkeypatch.setattr(engine, "_take_step", interrupted)
        return monkeypatch

    return arrange


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """What must come out."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["evensphere", "train", "digits-lt", *TINY, "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return RunDir(out)


def same_bytes(run: RunDir, other: RunDir) -> bool:
    files = [(one.metrics_file.read_bytes(), one.encoder_file.read_bytes()) for one in (run, other)]
    return files[0] == files[1]


@pytest.mark.parametrize(("number", "code"), [(Signals.SIGINT, 130), (Signals.SIGTERM, 143), (Signals.SIGUSR1, 0)])
def test_a_signal_ends_training_after_the_step_with_a_checkpoint(
    number: Signals,
    code: int,
    evensphere: Run,
    signal_in_step: Callable[[int, Signals], object],
    whole: RunDir,
    tmp_path: Path,
) -> None:
    run = RunDir(tmp_path / "run")
    command = ["train", "digits-lt", *TINY, "--out", str(run.path)]
    signal_in_step(2, number)
    ended, said = evensphere(*command)
    assert ended == code
    assert f"Stopped at step 3 of 6 by {number.name}; the same command goes on" in said
    assert "Traceback" not in said
    assert run.checkpoint_steps()[-1] == 3, "the step was finished and is not lost"
    assert evensphere(*command, "--resume")[0] == 0
    assert same_bytes(run, whole)


def test_a_signal_in_the_last_step_ends_the_command_too(
    evensphere: Run, signal_in_step: Callable[[int, Signals], object], whole: RunDir, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    command = ["train", "digits-lt", *TINY, "--out", str(run.path)]
    signal_in_step(5, Signals.SIGTERM)
    assert evensphere(*command)[0] == 143
    assert not run.encoder_file.exists()
    assert evensphere(*command, "--resume")[0] == 0
    assert same_bytes(run, whole)


@pytest.mark.parametrize("command", ["quickstart", "reproduce"])
def test_a_signal_ends_a_command_of_several_runs(
    command: str, evensphere: Run, signal_in_step: Callable[[int, Signals], object], tmp_path: Path
) -> None:
    arguments = {
        "quickstart": ["quickstart", "--seeds", "1", *TINY],
        "reproduce": ["reproduce", "pilot", "--scale", "tiny", "--seeds", "1"],
    }[command]
    signal_in_step(1, Signals.SIGINT)
    ended, said = evensphere(*arguments, "--out", str(tmp_path))
    assert ended == 130
    assert "Stopped at step 2" in said
    assert len(list(tmp_path.glob("*/recipe.json"))) == 1, "no other run was begun"


def test_a_full_disk_is_one_sentence_and_exit_code_2(
    evensphere: Run, monkeypatch: pytest.MonkeyPatch, whole: RunDir, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    command = ["train", "digits-lt", *TINY, "--out", str(run.path)]
    write_all, checkpoints = disk._write_all, []

    def fill(descriptor: int, data: bytes | memoryview) -> None:
        checkpoints.append(len(data) > 10_000)
        if sum(checkpoints) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_all(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "_write_all", fill)
        code, said = evensphere(*command)
    assert code == 2
    (sentence,) = [line for line in said.splitlines() if "Cannot write" in line]
    assert "disk is full; make room and give the same command again (`train` with --resume)" in sentence
    assert run.checkpoint_steps(), "the checkpoints before are intact"
    assert evensphere(*command, "--resume")[0] == 0
    assert same_bytes(run, whole)


def test_a_run_that_cannot_be_written_to_can_still_be_read(
    whole: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened = disk._open

    def read_only(path: Path, flags: int) -> int:
        if whole.path in path.parents:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, flags)

    monkeypatch.setattr(disk, "_open", read_only)
    for write in (lambda: evaluate(whole.path), lambda: write_report(whole.path)):
        with pytest.raises(InputError, match=r"read-only; make it writable or choose another place \(--out\)"):
            write()
    scores = evaluate(whole.path, out=tmp_path / "scores.json")
    assert scores["knn"]
    assert (tmp_path / "scores.json").exists()
    assert write_report(whole.path, tmp_path / "page" / "report.html").exists()


def test_scores_that_could_not_be_written_are_not_computed(whole: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evensphere.recipes.scoring.evaluate_encoder", lambda *_: pytest.fail("computed"))
    with faulty_disk(monkeypatch, 0, "EACCES"), pytest.raises(InputError, match="permission denied"):
        evaluate(whole.path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "setpgid"), reason="needs groups of processes")
def test_a_group_of_processes_with_workers_ends_with_a_checkpoint(tmp_path: Path) -> None:
    """As Ctrl-C and `timeout` do it: every process of the group gets the signal, some of them twice."""
    digits = load_digits(n_class=2)
    for i in range(60):
        target = tmp_path / "images" / str(digits.target[i]) / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype("uint8")).resize((20, 20)).save(target)
    run = RunDir(tmp_path / "run")
    settings = ["epochs=2000", "storage=files", "workers=2", "backbone=resnet-small", "backbone.width=4"]
    command = ["train", "folder", "--data", str(tmp_path / "images"), "--out", str(run.path)]
    command += [argument for setting in settings for argument in ("--set", setting)]
    started = [sys.executable, "-c", "from evensphere.cli.main import main; main()", *command]
    process = subprocess.Popen(started, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        for _ in range(1200):
            if run.metrics_file.exists() and len(run.read_metrics()) > 2:
                break
            time.sleep(0.1)
        for _ in range(2):
            os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, said
    assert "Traceback" not in said
    step = run.checkpoint_steps()[-1]
    last = torch.load(run.checkpoint_file(step), weights_only=True)
    assert f"Stopped at step {last['step']} of" in said
