"""Signals: what is heard when, what is handed on, and what SLURM is asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import pytest

from evensphere.engine import stop as module
from evensphere.engine.stop import StopRequest, interruption, requeue_between_runs
from evensphere.errors import TrainingInterrupted

HEARD = [Signals.SIGINT, Signals.SIGTERM, Signals.SIGUSR1]


class Reached(Exception):
    """A signal came to whoever listened before."""


@pytest.fixture(autouse=True)
def listeners() -> Iterator[None]:
    """Everybody who listens outside of a block raises Reached; afterwards all is as it was."""

    def reached(number: int, frame: object) -> None:
        raise Reached(number)

    before = {number: signal.signal(number, reached) for number in HEARD}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", HEARD)
def test_a_signal_is_heard_and_nothing_else_happens(number: Signals) -> None:
    with StopRequest() as stop:
        assert stop.asked() is None
        send(number)
        assert stop.asked() is number
        assert stop.asked() is number
    with pytest.raises(Reached):
        send(number)  # the listeners of before are back


def test_a_second_signal_stops_at_once_unless_it_is_the_echo_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ECHO", 1.0)
    with StopRequest() as stop:
        send(Signals.SIGTERM)
        send(Signals.SIGTERM)
        assert stop.asked() is Signals.SIGTERM
        time.sleep(1.1)
        with pytest.raises(Reached):
            send(Signals.SIGTERM)
    with StopRequest() as stop:
        send(Signals.SIGUSR1)
        with pytest.raises(Reached):  # the time is up: that is no echo
            send(Signals.SIGTERM)
        assert stop.asked() is Signals.SIGUSR1


def test_a_signal_that_comes_too_late_is_for_whoever_comes_next() -> None:
    def block() -> None:
        with StopRequest() as stop:
            assert stop.asked() is None
            send(Signals.SIGTERM)

    with pytest.raises(Reached):
        block()


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job that a shell started in the background
    with StopRequest() as stop:
        send(Signals.SIGINT)
        assert stop.asked() is None


def test_outside_the_main_thread_nobody_asks() -> None:
    asked: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            asked.append(stop.asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [None]


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scontrol that writes down what it is told, and fails if there is a file named `broken` beside it."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\nif [ -e "{tmp_path}/broken" ]; then echo "Invalid job id" >&2; exit 1; fi\n'
        f'echo "$@" >> "{tmp_path}/told"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return program


def test_slurm_is_asked_to_start_the_job_again(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    ended = interruption(Signals.SIGUSR1, "at step 3 of 9")
    assert (scontrol.parent / "told").read_text() == "requeue 123\n"
    assert ended.code == 0
    assert "step 3 of 9" in ended.sentence
    assert "start job 123 again" in ended.sentence

    (scontrol.parent / "broken").touch()
    ended = interruption(Signals.SIGUSR1, "at step 3 of 9")
    assert ended.code == 1
    assert "Invalid job id" in ended.sentence

    monkeypatch.setenv("PATH", "")
    assert "No such file" in interruption(Signals.SIGUSR1, "").sentence


def test_without_slurm_nobody_is_asked(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert interruption(Signals.SIGUSR1, "at step 3 of 9").code == 0
    assert not (scontrol.parent / "told").exists()
    requeue_between_runs()
    with pytest.raises(Reached):
        send(Signals.SIGUSR1)


def test_slurm_is_asked_between_two_runs_too(scontrol: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    requeue_between_runs()
    with pytest.raises(TrainingInterrupted) as ended:
        send(Signals.SIGUSR1)
    assert ended.value.code == 0
    assert (scontrol.parent / "told").read_text() == "requeue 7\n"


@pytest.mark.parametrize(("number", "code"), [(Signals.SIGINT, 130), (Signals.SIGTERM, 143), (Signals.SIGUSR1, 0)])
def test_the_exit_code_is_the_shell_s(number: Signals, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert interruption(number, "").code == code
