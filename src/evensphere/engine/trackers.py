"""TensorBoard and Weights & Biases as followers of a run: what metrics.jsonl says, they are told.

A thread reads the file that training writes. So whatever happens to a tracker happens to no run, the bits of a run are
the same with and without, and a run that is resumed is told from its beginning, without the steps that were taken back.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from math import isfinite
from typing import Any, Protocol, runtime_checkable

import torch
from rich.console import Console

from evensphere.errors import InputError
from evensphere.metrics.signals import effective_number
from evensphere.rundir import RunDir
from evensphere.untrusted import RESULTS, read_json_object

_EVERY = 5.0  # seconds between two looks at the file
_PACKAGES = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb"}
_CURVES = {
    "step": "train",
    "evaluation": "validation",
}  # kinds of events that hold scalars, and what is put before them
_WHERE = ("event", "step", "epoch", "stage")


@runtime_checkable
class Tracker(Protocol):
    """Somebody who draws curves."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard (`tensorboard --logdir RUN`)."""

    def __init__(self, run: RunDir) -> None:
        writer = _package("tensorboard").SummaryWriter
        self._writer = writer(str(run.path / "tensorboard"), purge_step=0)  # whatever was told before is told anew

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A run named like the folder, in the project "evensphere" unless WANDB_PROJECT says otherwise. Its number is kept
    in RUN/trackers.json, so that a resumed run is the same one there."""

    def __init__(self, run: RunDir) -> None:
        self._run = _package("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "evensphere"),
            name=run.path.resolve().name,
            id=_identity(run),
            resume="allow",
            dir=str(run.path),
            config=run.read_recipe(),
        )

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if step >= self._run.step:  # it takes none that lies behind
            self._run.log(dict(scalars), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[RunDir], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a tracker that does not exist, is not installed or would ask for a password."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--track {name} was given; choose from {', '.join(TRACKERS)}.")
        package = _package(name)
        away = os.environ.get("WANDB_MODE") in ("offline", "disabled")
        if name == "wandb" and not away and not package.setup().settings.api_key:
            raise InputError("--track wandb needs an account: run `wandb login` first, or set WANDB_MODE=offline.")


@contextmanager
def tracked(run: RunDir, names: Sequence[str], console: Console) -> Iterator[None]:
    """Tell trackers what happens in a run, from its beginning on and as long as the block lasts.

    names: see TRACKERS. A tracker that fails is told no more, with a sentence on the console; the run goes on.
    Raises InputError like `check_trackers`.
    """
    check_trackers(names)
    followers = [_Follower(run, name, console) for name in names]
    for follower in followers:
        follower.start()
    try:
        yield
    finally:
        for follower in followers:
            follower.finish()


class _Follower(threading.Thread):
    """Tells one tracker of one run."""

    def __init__(self, run: RunDir, name: str, console: Console) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self._folder, self._tracker, self._console = run, name, console
        self._ended, self._told = threading.Event(), 0

    def run(self) -> None:
        try:
            self._wait_for_news()
            if self._folder.recipe_file.is_file():
                self._follow(TRACKERS[self._tracker](self._folder))
        except Exception as error:  # whatever it is, it is no reason to end a training
            self._console.print(f"{self._tracker} is told no more: {type(error).__name__}: {error}.", soft_wrap=True)

    def finish(self) -> None:
        """Tell what is left, and wait until it is told."""
        self._ended.set()
        self.join()

    def _wait_for_news(self) -> None:
        """Until training writes its first line: what a resumed run takes back, it has taken back before."""
        before = self._folder.metrics_size()
        while not self._ended.wait(_EVERY) and self._folder.metrics_size() == before:
            pass

    def _follow(self, tracker: Tracker) -> None:
        try:
            while not self._ended.wait(_EVERY):
                self._tell(tracker)
            self._tell(tracker)
        finally:
            tracker.close()

    def _tell(self, tracker: Tracker) -> None:
        events = self._folder.read_metrics()
        for event in events[self._told :]:
            if (scalars := _scalars(event)) and isinstance(event.get("step"), int):
                tracker.log(event["step"], scalars)
        self._told = len(events)


def _scalars(event: Mapping[str, Any]) -> dict[str, float]:
    """The curves that an event is a point of: train/loss, validation/knn, regions/effective ..."""
    if event.get("event") == "population":
        return {"regions/effective": effective_number(torch.tensor(event["prior"]))}
    curve = _CURVES.get(event.get("event", ""))
    numbers = {name: value for name, value in event.items() if name not in _WHERE and isinstance(value, int | float)}
    return {f"{curve}/{name}": float(value) for name, value in numbers.items() if isfinite(value)} if curve else {}


def _identity(run: RunDir) -> str:
    """A number of the run's own, the same when it is resumed."""
    known = read_json_object(run.trackers_file, RESULTS) if run.trackers_file.is_file() else None
    if known is None or not isinstance(known.get("wandb"), str):
        known = {"wandb": uuid.uuid4().hex[:16]}
        run.write_json(run.trackers_file, known)
    return str(known["wandb"])


def _package(name: str) -> Any:
    try:
        return import_module(_PACKAGES[name])
    except ImportError as error:
        raise InputError(
            f"--track {name} was given, and its package is not installed; pip install 'evensphere[{name}]'."
        ) from error
