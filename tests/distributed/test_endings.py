"""The command in several processes: it says things once, ends as one, and never hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from safetensors.torch import load_file

from evensphere.rundir import RunDir

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-c", "from evensphere.cli.main import main; main()", "train", "digits-lt"]
SMALL = ["epochs=3", "precision=64-true", "backbone.width=4", "schedule.learning_rate=0.05", "schedule.middle=0.03"]
LIMIT = 900  # seconds; far beyond what any of these takes, on a busy machine too


def command(out: Path, *more: str, settings: list[str] = SMALL) -> list[str]:
    return [*COMMAND, "--out", str(out), *more, *(f"--set={setting}" for setting in settings)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "EVENSPHERE_TIMEOUT": "60"} | more


def finish(process: subprocess.Popen[str]) -> tuple[int, list[str], list[str]]:
    """Exit code, and the lines of stdout and stderr."""
    out, errors = process.communicate(timeout=LIMIT)
    return process.returncode, out.splitlines(), errors.splitlines()


def start(arguments: list[str], **more: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True, env=environment(**more))


def test_the_command_in_two_processes_trains_what_it_trains_in_one(tmp_path: Path) -> None:
    by_torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
    code, out, errors = finish(start(command(tmp_path / "1")))
    assert code == 0, errors
    for name, arguments in (
        ("2", command(tmp_path / "2", "--devices", "2")),
        ("torchrun", [*by_torchrun, *command(tmp_path / "torchrun")]),
    ):
        code, out, errors = finish(start(arguments))
        assert code == 0, errors
        assert [line.split()[0] for line in out] == ["Trained:", "Next:"], "said once"
        assert sum("Trained on" in line for line in errors) == 1
        one, two = (load_file(RunDir(tmp_path / run).encoder_file) for run in ("1", name))
        for key, weights in one.items():
            assert torch.allclose(two[key], weights, rtol=1e-9, atol=1e-9), key
        events = [RunDir(tmp_path / run).read_metrics() for run in ("1", name)]
        assert [event["event"] for event in events[0]] == [event["event"] for event in events[1]]
        assert events[0][-1] == events[1][-1], "the evaluation"


def test_a_mistake_is_said_once(tmp_path: Path) -> None:
    code, out, errors = finish(start(command(tmp_path / "run", "--devices", "2", settings=["batch_size=63"])))
    assert (code, out) == (2, [])
    assert errors == ["batch_size = 63 was given, which 2 processes cannot share alike; give a multiple of 2."]
    assert not (tmp_path / "run").exists()


def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path: Path) -> None:
    settings = [*SMALL, "epochs=40", "checkpoint_every=2 steps"]
    process = start(command(tmp_path / "run", "--devices", "2", settings=settings))
    run = RunDir(tmp_path / "run")
    until = time.monotonic() + LIMIT
    while not run.checkpoint_steps() and time.monotonic() < until:
        time.sleep(0.1)
    (child,) = psutil.Process(process.pid).children()
    child.send_signal(signal.SIGKILL)
    code, out, errors = finish(process)
    assert (code, out) == (1, [])
    assert "lost the others" in errors[-1]
    assert sum("lost the others" in line for line in errors) == 1
    assert run.checkpoint_steps()


def test_processes_that_do_not_come_are_not_waited_for(tmp_path: Path) -> None:
    port = str(find_free_network_port())
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "EVENSPHERE_TIMEOUT": "3"}
    code, out, errors = finish(start(command(tmp_path / "run", "--nodes", "2"), **meeting))
    assert (code, out) == (1, [])
    assert len(errors) == 1
    assert f"2 processes did not find each other at 127.0.0.1:{port} within 3 seconds" in errors[0]
