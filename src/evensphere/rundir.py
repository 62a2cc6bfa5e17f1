"""A run on disk: the names of its files, their formats, the lock.

The run folder is the interface between the commands: `train` writes it; evaluate, report and the rest only read what
is there and add their own file. Nothing here imports torch, so the command line can look into a run at once.

    RUN/recipe.json           the fully resolved recipe          RUN/eval.json       metrics of the frozen encoder
    RUN/environment.json      versions, hardware, git revision   RUN/skipped.csv     images that could not be read
    RUN/images.json           which file is image i, and what counts once (no file for whole data sets held in memory)
    RUN/stages/               the runs that a run in stages is made of
    RUN/diagnosis.json, .html what can be said without labels (see `evensphere diagnose`)
    RUN/surrogates.json       what GH's surrogate labels knew of the classes (runs of a table only)
    RUN/transfer-NAME.json    what the encoder is worth on other labelled images (runs of a table only)
    RUN/timing.json           seconds spent training
    RUN/trackers.json         what W&B knows the run by; RUN/tensorboard, RUN/wandb: what trackers write (--track)
    RUN/validation.json       the same metrics on validation images, by which settings are chosen
    RUN/predictions.parquet, validation-predictions.parquet      what was predicted for each of those images
    RUN/metrics.jsonl         one JSON object per logged event   RUN/report.html     the page people look at
    RUN/map.json              where the finished encoder puts the images, with pictures of some (recipes/mapping.py)
    RUN/checkpoints/*.pt      everything a resumed run needs     RUN/encoder.safetensors   the finished encoder
    RUN/best.safetensors      the encoder when its validation accuracy was highest (no file without validation images)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from evensphere.disk import DiskError, append, atomic_write, clear_parts, make_folder, remove, rename, truncate
from evensphere.errors import InputError
from evensphere.spreadsheet import read_csv, to_csv
from evensphere.untrusted import IMAGES, RESULTS, read_json, read_json_lines, read_json_object

Split = Literal["test", "validation"]  # labelled images that an encoder is scored on
Which = Literal["last", "best"]  # of a run's encoders


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
        self.best_file = self.path / "best.safetensors"
        self.evaluation_file = self.path / "eval.json"
        self.validation_file = self.path / "validation.json"
        self.report_file = self.path / "report.html"
        self.map_file = self.path / "map.json"
        self.diagnosis_file = self.path / "diagnosis.json"
        self.surrogates_file = self.path / "surrogates.json"
        self.timing_file = self.path / "timing.json"
        self.trackers_file = self.path / "trackers.json"
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
            make_folder(self.checkpoints)
        except DiskError as error:
            raise InputError(f"Cannot write a run to {self.path}: {error.reason}; choose another --out.") from error
        if not os.access(self.path, os.W_OK):
            raise InputError(f"Cannot write a run to {self.path}: permission denied; choose another --out.")

    def lock(self) -> AbstractContextManager[Any]:
        """Take the run for this process; held until released or the process ends. What a process that died here left
        half written goes. Raises InputError if the run is taken, or cannot be written to."""
        lock = FileLock(self.path / ".lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path} is in use by another process; wait for it to end or choose another --out."
            ) from None
        except OSError as error:
            raise DiskError(self.path / ".lock", error) from error
        for folder in (self.path, self.checkpoints):
            clear_parts(folder)
        return held

    # --- recipe, environment, results ---------------------------------------------------------------------------------

    def write_json(self, file: Path, content: Mapping[str, Any]) -> None:
        atomic_write(file, json.dumps(content, indent=2) + "\n")

    def read_recipe(self) -> dict[str, Any]:
        try:
            recipe = read_json(self.recipe_file)
            if not isinstance(recipe, dict):
                raise ValueError("it holds no recipe")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.recipe_file} cannot be read ({error}); the run is damaged.") from error
        return recipe

    def read_environment(self) -> dict[str, Any]:
        """What the run ran on, empty where that is not known."""
        return self._read_object(self.environment_file)

    def results_file(self, split: Split, encoder: Which = "last") -> Path:
        """Where the metrics of an encoder on a split of the labelled images are written."""
        file = self.evaluation_file if split == "test" else self.validation_file
        return file if encoder == "last" else file.with_name(f"{file.stem}-best.json")

    def predictions_file(self, split: Split) -> Path:
        """Where what was predicted for each image of that split is written."""
        return self.path / ("predictions.parquet" if split == "test" else f"{split}-predictions.parquet")

    def transfer_file(self, target: str) -> Path:
        """Where the scores on other labelled images, called `target`, are written."""
        return self.path / f"transfer-{target}.json"

    def transfer_files(self) -> dict[str, Path]:
        """Those that are there, by the name of the target."""
        found = sorted(self.path.glob("transfer-*.json"))
        return {file.stem.removeprefix("transfer-"): file for file in found}

    def read_results(self, split: Split, encoder: Which = "last") -> dict[str, Any]:
        """The metrics of an encoder on a split, empty where there are none (or none that can be read)."""
        return self._read_object(self.results_file(split, encoder))

    def _read_object(self, file: Path) -> dict[str, Any]:
        return read_json_object(file, RESULTS, finite=False) or {}

    def read_images(self) -> list[str]:
        """Where each image of the run comes from, in the run's order."""
        images = (read_json_object(self.images_file, IMAGES) or {}).get("images")
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise InputError(f"{self.images_file} cannot be read; the run is damaged.")
        return images

    def read_groups(self) -> list[int] | None:
        """The group of near-duplicates that each image of the run belongs to, None where each counts for itself."""
        content = read_json_object(self.images_file, IMAGES) or {}
        images = content.get("images")
        groups: list[int] | None = content.get("groups")
        if groups is None:
            return None
        numbers = isinstance(groups, list) and all(isinstance(group, int) and group >= 0 for group in groups)
        if not numbers or not isinstance(images, list) or len(groups) != len(images) or max(groups) >= len(images):
            raise InputError(f"{self.images_file} has no usable group for each image; the run is damaged.")
        return groups

    def write_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        """skipped.csv: the images that could not be read, and why."""
        atomic_write(self.skipped_file, to_csv(["path", "reason"], skipped))

    def read_skipped(self) -> list[tuple[str, str]]:
        if not self.skipped_file.exists():
            return []
        try:
            return [(row.get("path", ""), row.get("reason", "")) for row in read_csv(self.skipped_file)]
        except (OSError, ValueError) as error:
            raise InputError(f"{self.skipped_file} cannot be read ({error}); the run is damaged.") from error

    # --- metrics: appended line by line, cut back to the checkpoint on resume -----------------------------------------

    def append_metrics(self, event: Mapping[str, Any]) -> None:
        append(self.metrics_file, json.dumps(event) + "\n")

    def metrics_size(self) -> int:
        """Bytes written so far; a checkpoint stores it so that a resumed run can drop the lines written after it."""
        return self.metrics_file.stat().st_size if self.metrics_file.exists() else 0

    def truncate_metrics(self, size: int) -> None:
        if self.metrics_file.exists():
            truncate(self.metrics_file, size)

    def best_evaluation(self) -> tuple[int, float] | None:
        """(steps taken, accuracy) where the average of the recipe's first monitor on validation images was highest, the
        first time if several; None before the first evaluation."""
        best: tuple[int, float] | None = None
        for event in self.read_metrics():
            scores = {name: score for name, score in event.items() if name not in ("event", "step", "epoch", "stage")}
            if event["event"] != "evaluation" or not scores:
                continue
            average = next(iter(scores.values()))
            if average is not None and (best is None or average > best[1]):
                best = event["step"] + 1, average
        return best

    def read_metrics(self, size: int | None = None) -> list[dict[str, Any]]:
        """Every complete event, of the first `size` bytes if given. A last line cut short by a kill is left out."""
        if not self.metrics_file.exists():
            return []
        return [event for event in read_json_lines(self.metrics_file, size) if event is not None]

    # --- time: kept apart from the metrics, which are the same bits however long they took ----------------------------

    def add_train_seconds(self, seconds: float) -> None:
        self.write_json(self.timing_file, {"train_seconds": round((self.train_seconds() or 0.0) + seconds, 3)})

    def train_seconds(self) -> float | None:
        """Seconds spent training up to the last checkpoint, over all processes that worked on the run one after the
        other; None before the first."""
        if not self.timing_file.exists():
            return None
        seconds = self._read_object(self.timing_file).get("train_seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint_file(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:09d}.pt"

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending. A write that was cut short still has its `.part` name."""
        found = (re.fullmatch(r"step-(\d+)\.pt", file.name) for file in self.checkpoints.glob("step-*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def prune_checkpoints(self, keep: int, others: Iterable[int] = ()) -> None:
        """Delete all but the last `keep` checkpoints and those of the steps in `others`."""
        kept = set(others)
        for step in self.checkpoint_steps()[:-keep]:
            if step not in kept:
                remove(self.checkpoint_file(step))

    def set_aside(self, step: int) -> None:
        """Have a checkpoint that cannot be read count no longer. It stays, as step-N.pt.damaged."""
        file = self.checkpoint_file(step)
        rename(file, f"{file.name}.damaged")

    def begin_anew(self) -> None:
        """Forget what a beginning that was cut short left behind, before there was a run."""
        for step in self.checkpoint_steps():
            remove(self.checkpoint_file(step))
        for file in (self.images_file, self.best_file):
            remove(file)
        self.truncate_metrics(0)


class ReadOnlyRun(RunDir):
    """A run folder for the processes that train with the one that owns it: they read, and leave writing to it."""

    def create(self) -> None:
        pass

    def lock(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def write_json(self, file: Path, content: Mapping[str, Any]) -> None:
        pass

    def write_skipped(self, skipped: Iterable[tuple[str, str]]) -> None:
        pass

    def append_metrics(self, event: Mapping[str, Any]) -> None:
        pass

    def truncate_metrics(self, size: int) -> None:
        pass

    def set_aside(self, step: int) -> None:
        pass

    def begin_anew(self) -> None:
        pass
