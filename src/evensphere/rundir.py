"""A run on disk: the names of its files, their formats, the one atomic write, the lock.

The run folder is the interface between the commands: `train` writes it; evaluate, report and the rest only read what
is there and add their own file. Nothing here imports torch, so the command line can look into a run at once.

    RUN/recipe.json           the fully resolved recipe          RUN/eval.json       metrics of the frozen encoder
    RUN/environment.json      versions, hardware, git revision   RUN/skipped.csv     images that could not be read
    RUN/images.json           which file is image i, and what counts once (no file for whole data sets held in memory)
    RUN/stages/               the runs that a run in stages is made of
    RUN/diagnosis.json, .html what can be said without labels (see `evensphere diagnose`)
    RUN/surrogates.json       what GH's surrogate labels knew of the classes (runs of a table only)
    RUN/timing.json           seconds spent training
    RUN/validation.json       the same metrics on validation images, by which settings are chosen
    RUN/metrics.jsonl         one JSON object per logged event   RUN/report.html     the page people look at
    RUN/checkpoints/*.pt      everything a resumed run needs     RUN/encoder.safetensors   the finished encoder
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from evensphere.errors import InputError

Split = Literal["test", "validation"]  # labelled images that an encoder is scored on


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing: aside, to the disk, then renamed over the old one."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


class RunDir:
    """A run folder. Opening one for reading changes nothing on disk; `create` and `lock` are for the writer."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.json"
        self.environment_file = self.path / "environment.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.stages = self.path / "stages"
        self.checkpoints = self.path / "checkpoints"
        self.encoder_file = self.path / "encoder.safetensors"
        self.evaluation_file = self.path / "eval.json"
        self.validation_file = self.path / "validation.json"
        self.report_file = self.path / "report.html"
        self.surrogates_file = self.path / "surrogates.json"
        self.timing_file = self.path / "timing.json"
        self.images_file = self.path / "images.json"
        self.skipped_file = self.path / "skipped.csv"

    @classmethod
    def existing(cls, path: Path | str) -> RunDir:
        """The run at `path`. Raises InputError if there is none."""
        run = cls(path)
        if not run.recipe_file.is_file():
            raise InputError(
                f"{path} is not a run folder (it has no recipe.json); give the --out of a `train` command."
            )
        return run

    def create(self) -> None:
        """Make the folder. Raises InputError where that is impossible."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"Cannot write a run to {self.path}: {error.strerror}; choose another --out.") from error
        if not os.access(self.path, os.W_OK):
            raise InputError(f"Cannot write a run to {self.path}: permission denied; choose another --out.")

    def lock(self) -> FileLock:
        """Take the run for this process; held until released or the process ends. Raises InputError if it is taken."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path} is in use by another process; wait for it to end or choose another --out."
            ) from None
        return lock

    # --- recipe, environment, results ---------------------------------------------------------------------------------

    def write_json(self, file: Path, content: Mapping[str, Any]) -> None:
        atomic_write(file, json.dumps(content, indent=2) + "\n")

    def read_recipe(self) -> dict[str, Any]:
        try:
            recipe = json.loads(self.recipe_file.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{self.recipe_file} cannot be read ({error}); the run is damaged.") from error
        assert isinstance(recipe, dict)
        return recipe

    def read_environment(self) -> dict[str, Any]:
        """What the run ran on, empty where that is not known."""
        return self._read_object(self.environment_file)

    def results_file(self, split: Split) -> Path:
        """Where the metrics on a split of the labelled images are written."""
        return self.evaluation_file if split == "test" else self.validation_file

    def read_results(self, split: Split) -> dict[str, Any]:
        """The metrics on a split, empty where there are none (or none that can be read)."""
        return self._read_object(self.results_file(split))

    def _read_object(self, file: Path) -> dict[str, Any]:
        try:
            content = json.loads(file.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def read_images(self) -> list[str]:
        """Where each image of the run comes from, in the run's order."""
        images = self._read_object(self.images_file).get("images")
        if not isinstance(images, list):
            raise InputError(f"{self.images_file} cannot be read; the run is damaged.")
        return images

    def read_groups(self) -> list[int] | None:
        """The group of near-duplicates that each image of the run belongs to, None where each counts for itself."""
        content = self._read_object(self.images_file)
        groups = content.get("groups")
        if groups is not None and len(groups) != len(content["images"]):
            raise InputError(f"{self.images_file} has {len(groups)} groups for its images; the run is damaged.")
        return groups

    def write_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        """skipped.csv: the images that could not be read, and why."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "reason"])
        writer.writerows(skipped)
        atomic_write(self.skipped_file, text.getvalue())

    def read_skipped(self) -> list[tuple[str, str]]:
        if not self.skipped_file.exists():
            return []
        with self.skipped_file.open(newline="") as file:
            return [(row["path"], row["reason"]) for row in csv.DictReader(file)]

    # --- metrics: appended line by line, cut back to the checkpoint on resume -----------------------------------------

    def append_metrics(self, event: Mapping[str, Any]) -> None:
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(event) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def metrics_size(self) -> int:
        """Bytes written so far; a checkpoint stores it so that a resumed run can drop the lines written after it."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def truncate_metrics(self, size: int) -> None:
        if self.metrics_file.exists():
            os.truncate(self.metrics_file, size)

    def read_metrics(self, size: int | None = None) -> list[dict[str, Any]]:
        """Every complete event, of the first `size` bytes if given. A last line cut short by a kill is left out."""
        if not self.metrics_file.exists():
            return []
        events = []
        for line in self.metrics_file.read_bytes()[:size].splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    # --- time: kept apart from the metrics, which are the same bits however long they took ----------------------------

    def add_train_seconds(self, seconds: float) -> None:
        self.write_json(self.timing_file, {"train_seconds": round((self.train_seconds() or 0.0) + seconds, 3)})

    def train_seconds(self) -> float | None:
        """Seconds spent training up to the last checkpoint, over all processes that worked on the run one after the
        other; None before the first."""
        if not self.timing_file.exists():
            return None
        return float(json.loads(self.timing_file.read_text())["train_seconds"])

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}.pt"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending. A write that was cut short still has its `.part` name."""
        found = (re.fullmatch(r"step-(\d+)\.pt", file.name) for file in self.checkpoints.glob("step-*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def prune_checkpoints(self, keep: int, milestones: Iterable[int] = ()) -> None:
        """Delete all but the last `keep` checkpoints and those at the `milestones`."""
        for step in self.checkpoint_steps()[:-keep]:
            if step not in set(milestones):
                self.checkpoint_file(step).unlink()
