"""What a person sees while a run trains: a progress bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """Progress of one run: epochs, images a second, time left, loss, the latest accuracy.

    Only the time since this process started counts for the speed, so a resumed run shows its own.
    """

    def __init__(self, title: str, epochs: int, steps_per_epoch: int, first_step: int, console: Console | None) -> None:
        self.console = console or Console(quiet=True, stderr=True)
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.title, self.images = title, 0
        self.started = self.lap_started = time.perf_counter()
        self.accuracy = ""
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),  # the recipe's own name
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}  {task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(
            title, total=epochs * steps_per_epoch, completed=first_step, epoch=0, epochs=epochs, note=""
        )

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def step(self, step: int, images: int) -> None:
        self.images += images
        epoch = step // self.steps_per_epoch + 1
        self.bar.update(self.task, completed=step + 1, epoch=epoch, note=f"{self.speed():,.0f} images/s{self.accuracy}")

    def say(self, sentence: str) -> None:
        """Something that a person should know, beside the bar."""
        self.console.print(sentence, soft_wrap=True, markup=False, highlight=False)

    def lap(self) -> float:
        """Seconds since the last call, or since the start."""
        now = time.perf_counter()
        seconds, self.lap_started = now - self.lap_started, now
        return seconds

    def speed(self) -> float:
        """Images per second of this process."""
        return self.images / max(time.perf_counter() - self.started, 1e-9)

    def evaluation(self, epoch: int, accuracies: Mapping[str, float | None]) -> None:
        """Show the first of the accuracies: the average of the first metric."""
        name, accuracy = next(iter(accuracies.items()))
        self.accuracy = f"  {name} {accuracy:.1f} %"
        if not self.console.is_terminal:
            self.console.print(
                f"{self.title}: epoch {epoch}/{self.epochs}, {self.accuracy.strip()} on validation, "
                f"{self.speed():,.0f} images/s",
                soft_wrap=True,
            )
