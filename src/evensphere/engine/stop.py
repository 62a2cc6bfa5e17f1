"""Being asked to stop. A run that is told so by a signal finishes its step, writes a checkpoint and ends.

    SIGINT    Ctrl-C                                                            exit code 130
    SIGTERM   kill, or a machine that is wanted back                            143
    SIGUSR1   SLURM, some time before the job's time is up (--signal=USR1@90)   0, and the job is queued again

A second signal stops at once, wherever the run is; it loses what was trained since the last checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from signal import Signals
from types import FrameType, TracebackType
from typing import Any

from evensphere.errors import TrainingInterrupted

_HEARD = tuple(Signals[name] for name in ("SIGINT", "SIGTERM", "SIGUSR1") if name in Signals.__members__)
_ECHO = 2.0  # seconds in which the same request may be heard twice: `timeout` tells a process and then its whole group


class StopRequest:
    """Hears signals while its block runs. Signals that are ignored stay so, and outside the main thread, where Python
    hears none, nobody ever asks."""

    def __init__(self) -> None:
        self._asked: Signals | None = None
        self._answered = False
        self._when = 0.0
        self._before: dict[Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _HEARD:
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # None: heard by somebody who is no Python
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deafen()
        if self._asked is not None and not self._answered and error is None:
            os.kill(os.getpid(), self._asked)  # it came too late for this block: it is for whoever comes next

    def asked(self) -> Signals | None:
        """The signal that came, if one did. Whoever is told is expected to stop."""
        self._answered = self._asked is not None
        return self._asked

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is None:
            self._asked, self._when = Signals(number), now
        elif number != self._asked or now > self._when + _ECHO:
            self._deafen()
            os.kill(os.getpid(), number)

    def _deafen(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}


def interruption(asked: Signals, where: str, requeue: bool = True) -> TrainingInterrupted:
    """How to end after a signal, once nothing can be lost any more.

    where: "at step 3 of 24", say. requeue: whether it is this process that asks SLURM to start the job again.
    """
    sentence = f"Stopped {where} by {asked.name}; the same command goes on from there (`train` with --resume)."
    if asked.name != "SIGUSR1":
        return TrainingInterrupted(sentence, 128 + asked)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None or not requeue:
        return TrainingInterrupted(sentence, 0)
    failure = _requeue(job)
    if failure is None:
        return TrainingInterrupted(f"{sentence} SLURM will start job {job} again.", 0)
    return TrainingInterrupted(f"{sentence} SLURM could not be asked to start job {job} again ({failure}).", 1)


def _requeue(job: str) -> str | None:
    """Put a job back into the queue; the reason if that is impossible."""
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"scontrol: {error.strerror}"
    return None if done.returncode == 0 else done.stderr.strip() or f"scontrol ended with {done.returncode}"


def requeue_between_runs() -> None:
    """In a SLURM job, have SIGUSR1 queue it again while no run is training either: when images are looked at, or a run
    is evaluated. What was being done then is done again."""
    if "SLURM_JOB_ID" in os.environ and hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _requeue_now)


def _requeue_now(number: int, frame: FrameType | None) -> None:
    raise interruption(Signals(number), "between two runs")
