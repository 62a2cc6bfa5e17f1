"""Runs in several stages: a sequence of ordinary runs in RUN/stages, whose last one RUN becomes.

    RUN/recipe.json           what was asked for           RUN/metrics.jsonl         the stages on the whole data set,
    RUN/stages/00-base/       an ordinary run              RUN/timing.json           on one time axis; seconds of all
    RUN/stages/01-.../        another one, ...             RUN/encoder.safetensors   the last stage's

A stage that is finished is not run again; one that was interrupted goes on from its checkpoint, as any run does.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from evensphere.disk import atomic_write
from evensphere.engine.processes import Processes
from evensphere.errors import InputError
from evensphere.methods.base import Method
from evensphere.recipes.images import listed_images, splits_of
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, with_length
from evensphere.recipes.run import begun_recipe, train_whole
from evensphere.rundir import RunDir


class Stage(NamedTuple):
    """One run of several. name: its folder's. first_epoch: when it begins on the time axis of the whole run, for a
    stage that sees all images; None for one whose metrics stay in its own folder."""

    name: str
    recipe: Recipe
    first_epoch: int | None = None


class Stages(ABC):
    """What a run in stages is made of; the constructor's keywords are the options of `--set stages.NAME=VALUE`."""

    @abstractmethod
    def check(self, method: Method) -> None:
        """Raises InputError for a method that the stages cannot be made with. Called before anything is written."""

    @abstractmethod
    def sequence(self, recipe: Recipe, folder: Path, console: Console) -> Iterator[Stage]:
        """The stages in order. Each is trained before the next one is asked for, so what a stage is may follow from
        what those before it left in `folder`. Raises InputError before the first stage for what can be known then."""


def train_stages(
    recipe: Recipe,
    run: RunDir,
    resume: bool,
    branch: Path | str | None,
    console: Console,
    strict: bool = False,
    processes: Processes | None = None,
) -> Path:
    """`train` for a recipe with stages. processes: those that train it together."""
    processes = processes or Processes()
    part = recipe.stages
    assert part is not None
    if branch is not None:
        raise InputError("A run in stages shares no first stage with another run; leave out --branch, or the stages.")
    begun = run.recipe_file.exists()
    if begun:  # by the first process, where this is another one
        recipe = begun_recipe(recipe, run, resume or not processes.first)
    if run.encoder_file.exists():
        console.print(f"{run.path} is finished; nothing to do.")
        return run.path
    if recipe.epochs == "auto":  # which the stages share out
        recipe = with_length(recipe, len(listed_images(splits_of(recipe).pretrain, recipe.images)))
    stages: Stages = build("stages", part)
    with ExitStack() as held:

        def begin(first: Recipe, method: Method) -> None:
            """What the first stage resolved holds for the whole run, which thereby exists."""
            stages.check(method)
            run.create()
            held.enter_context(run.lock())
            run.write_json(run.recipe_file, _resolved(recipe, first).to_json())

        if begun:
            held.enter_context(run.lock())
        done: list[Stage] = []
        sequence = stages.sequence(recipe, run.stages, console)
        while (stage := processes.in_turn(lambda: next(sequence, None))) is not None:
            own = type(run)(run.stages / stage.name)
            if not own.encoder_file.exists():
                console.print(f"Stage {stage.name}: {stage.recipe.epochs} epochs")
                ready = None if begun or done else begin
                train_whole(stage.recipe, own, True, None, console, strict, ready, processes)
            done.append(stage)
            if stage.first_epoch is not None and processes.first:
                _write_metrics(run, done)
        if processes.first:
            _finish(run, done)
    return run.path


def _resolved(recipe: Recipe, first: Recipe) -> Recipe:
    """The whole run's recipe with what was left open decided as in the first stage."""
    assert recipe.epochs != "auto"
    total_steps = recipe.epochs * first.resolved["steps_per_epoch"]
    resolved = first.resolved | {"total_steps": total_steps}
    return replace(first, stages=recipe.stages, epochs=recipe.epochs, resolved=resolved)


def _write_metrics(run: RunDir, stages: Sequence[Stage]) -> None:
    """RUN/metrics.jsonl: the events of the stages on the whole data set, each with its stage's name."""
    steps_per_epoch = run.read_recipe()["resolved"]["steps_per_epoch"]
    lines = []
    for stage in stages:
        if stage.first_epoch is None:
            continue
        for event in RunDir(run.stages / stage.name).read_metrics():
            step = event["step"] + stage.first_epoch * steps_per_epoch
            moved = {"step": step, "epoch": event["epoch"] + stage.first_epoch, "stage": stage.name}
            lines.append(json.dumps(event | moved) + "\n")
    atomic_write(run.metrics_file, "".join(lines))


def _finish(run: RunDir, stages: Sequence[Stage]) -> None:
    """Make RUN a finished run: the first stage's images and machine, the last one's encoder."""
    runs = [RunDir(run.stages / stage.name) for stage in stages]
    first, last = runs[0], runs[-1]
    seconds = sum(one.train_seconds() or 0.0 for one in runs)
    run.write_json(run.timing_file, {"train_seconds": round(seconds, 3)})
    for mine, theirs in (
        (run.images_file, first.images_file),
        (run.skipped_file, first.skipped_file),
        (run.environment_file, first.environment_file),
        (run.best_file, last.best_file),
        (run.encoder_file, last.encoder_file),  # last: from here on the run is finished
    ):
        if theirs.exists():
            atomic_write(mine, theirs.read_bytes())
