"""From a recipe to a run folder: a run is begun, gone on with, and finished."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console

from evensphere.data.source import ArraySource, Source, Splits
from evensphere.data.stream import Stream
from evensphere.engine.checkpoint import branch_checkpoint, check_branch, save_encoder
from evensphere.engine.compilation import check_compiler
from evensphere.engine.micro_batches import normalises_by_parts
from evensphere.engine.preflight import preflight
from evensphere.engine.processes import Processes, together
from evensphere.engine.sharding import Sharding
from evensphere.engine.trackers import tracked
from evensphere.engine.train import Training, fit
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer
from evensphere.methods.base import Method
from evensphere.ops import collective
from evensphere.recipes.beginning import Beginning
from evensphere.recipes.building import build_training
from evensphere.recipes.bursts import fingerprints_for, group_bursts, groups_of
from evensphere.recipes.channels import with_channels
from evensphere.recipes.images import add_skipped, check_stream, images_of, listed_images, splits_of, write_images
from evensphere.recipes.recipe import Recipe, because, get_recipe, with_precision, with_sizes
from evensphere.recipes.sharded import check_encoder, check_recipe
from evensphere.recipes.storing import look_at, pixels_again
from evensphere.recipes.trust import trusting
from evensphere.rundir import ReadOnlyRun, RunDir


def train(
    recipe: Recipe | str,
    out: Path | str,
    resume: bool = False,
    branch: Path | str | None = None,
    devices: int | None = None,
    console: Console | None = None,
    strict: bool = False,
    trust: bool = False,
    nodes: int | None = None,
    trackers: Sequence[str] = (),
    sharding: Sharding = "none",
) -> Path:
    """Train a recipe into the run folder `out`; returns it.

    recipe: a Recipe or the name of one.
    resume: go on with the run in `out` if it was begun, which must have been with the same recipe; its images may have
        moved. A finished run is left as it is.
    branch: another run, of the arm gh, to start from where its warm-up ended; up to there the two must be the same.
    devices, nodes: processes on each machine, and machines (see engine.processes); None: those that torchrun or srun
        started, else 1. They compute what one process computes, up to rounding. They are started by running the
        program again, up to this call, from which only the first one returns: so it takes a script or a command, not a
        notebook, and one such call in a program.
    sharding: "fsdp" for processes that keep a part of the parameters each, instead of a copy (see engine.sharding).
    console: where progress is shown; None shows nothing.
    strict: refuse images that cannot be read, instead of leaving them out.
    trust: whether the run in `out`, and others that this one learns from, may name code to run that `recipe` does not.
    trackers: who else is told of losses and accuracies: "tensorboard", "wandb" (see engine/trackers.py).
    Raises InputError before anything is written if the recipe, the data or `out` cannot be used.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    if sharding != "none":
        check_recipe(recipe, branch)
    with together(devices, nodes, sharding) as processes, trusting(trust, *recipe.import_paths):
        run = RunDir(out) if processes.first else ReadOnlyRun(out)
        console = console if console is not None and processes.first else Console(quiet=True)
        with tracked(run, trackers if processes.first else (), console):
            if recipe.stages is not None:
                from evensphere.recipes.stages import train_stages  # which trains each stage by what is below

                train_stages(recipe, run, resume, branch, console, strict, processes)
            else:
                train_whole(recipe, run, resume, branch, console, strict, processes=processes)
    if not processes.first:
        raise SystemExit  # the rest of the program is the first process's
    return run.path


Ready = Callable[[Recipe, Method], None]


def train_whole(
    recipe: Recipe,
    run: RunDir,
    resume: bool,
    branch: Path | str | None,
    console: Console,
    strict: bool = False,
    ready: Ready | None = None,
    processes: Processes | None = None,
) -> Path:
    """`train` for a run in one piece. ready: told of a new run's resolved recipe and method before its folder is made;
    it may refuse them. processes: those that train it together."""
    processes = processes or Processes()
    if not processes.first:
        processes.meet_first()  # when the run is there to be read: this process goes on with what was begun
        resume = True
    begun = run.recipe_file.exists()
    if begun:
        recipe = begun_recipe(recipe, run, resume)
    elif branch is not None:
        recipe = recipe.branching_from(Recipe.from_json(RunDir.existing(branch).read_recipe()))
    if recipe.compile:
        check_compiler()
    splits = splits_of(recipe)
    fabric = processes.fabric(with_precision(recipe).precision)
    if begun:
        return _go_on(recipe, splits, run, fabric, console, processes)
    source = None if branch is None else RunDir(branch)
    return _begin(recipe, splits, run, source, fabric, console, strict, ready, processes)


def begun_recipe(recipe: Recipe, run: RunDir, resume: bool) -> Recipe:
    """The recipe to go on with a begun run with. Raises InputError where nobody asked for that."""
    if not resume:
        raise InputError(f"{run.path} already holds a run; add --resume to go on with it, or choose another --out.")
    return recipe.resuming(Recipe.from_json(run.read_recipe()))


def _go_on(recipe: Recipe, splits: Splits, run: RunDir, fabric: Fabric, console: Console, processes: Processes) -> Path:
    """The rest of a run that was begun."""
    with run.lock():
        source = images_of(run, splits.pretrain)
        pixels = source if run.encoder_file.exists() else pixels_again(recipe, source, fabric.device, console)
        begin = None if run.checkpoint_steps() or run.encoder_file.exists() else Beginning(recipe, console)
        training = build_training(recipe, splits, source, run, pixels, groups_of(run), begin)
        if not run.encoder_file.exists():
            _check_epochs(run, recipe, training)
        if processes.sharding != "none":
            check_encoder(recipe, training.method.encoder)
        return _finish(training, recipe, run, fabric, console, processes)


def _check_epochs(run: RunDir, recipe: Recipe, training: Training) -> None:
    """Refuse to go on from a run, of this recipe, whose epochs had another number of steps: its checkpoints and its
    schedule count by them."""
    now = training.loader.steps_per_epoch
    then = recipe.resolved.get("steps_per_epoch", now)
    if then != now:
        raise InputError(
            f"{run.path} was begun with epochs of {then} steps, and they have {now} now (a stream's are of whole "
            "batches since); go on with the images and the version that it was begun with, or start a new run."
        )


def _begin(
    recipe: Recipe,
    splits: Splits,
    run: RunDir,
    branch: RunDir | None,
    fabric: Fabric,
    console: Console,
    strict: bool,
    ready: Ready | None,
    processes: Processes,
) -> Path:
    """A new run. Everything that can be wrong is found out before the folder is made."""
    if isinstance(splits.pretrain, Stream):
        check_stream(splits.pretrain, recipe, ready is not None, console)
    chosen = listed_images(splits.pretrain, recipe.images)
    fingerprints = fingerprints_for(recipe, chosen)
    see = None if fingerprints is None else fingerprints.see
    recipe, (source, pixels, skipped) = look_at(recipe, chosen, fabric.device, console, strict, see)
    recipe, groups = group_bursts(recipe, source, fingerprints, console)
    recipe = with_precision(with_channels(with_sizes(recipe, source), source))
    begin = Beginning(recipe, console)
    training = build_training(recipe, splits, source, run, pixels, groups, begin)
    recipe = _resolved(recipe, training, source, begin)
    if processes.sharding != "none":
        check_encoder(recipe, training.method.encoder)
    if ready is not None:
        ready(recipe, training.method)
    begun = None if branch is None else _check_branch(branch, source, training)
    run.create()
    with run.lock():
        if run.recipe_file.exists():  # since it was looked for
            begun_recipe(recipe, run, resume=False)
        run.begin_anew()
        run.write_skipped(skipped)
        run.write_json(run.environment_file, environment(fabric))
        if recipe.images is not None or groups is not None or not isinstance(source, ArraySource | Stream):
            write_images(run, source, groups)
        if branch is not None and begun is not None:
            branch_checkpoint(branch, begun.resolved["warm_up_steps"], run, recipe.heritage(begun))
        run.write_json(run.recipe_file, recipe.to_json())  # last: from here on the folder is a run
        return _finish(training, recipe, run, fabric, console, processes)


def _finish(
    training: Training, recipe: Recipe, run: RunDir, fabric: Fabric, console: Console, processes: Processes
) -> Path:
    """Train to the end and write the encoder."""
    if processes.first:
        processes.meet_first()  # the others find the run now
    if run.encoder_file.exists():
        console.print(f"{run.path} is finished; nothing to do.")
        return run.path
    if not console.quiet and (expected := preflight(training, fabric)) is not None:
        console.print(str(expected), soft_wrap=True)
    if training.micro_batches > 1 and normalises_by_parts(training.method.encoder):
        console.print(
            f"micro_batches={training.micro_batches}: the loss sees whole batches; BatchNorm in the encoder normalises "
            f"{training.part_size} images at a time by their own statistics, as in data parallelism.",
            soft_wrap=True,
        )
    try:
        encoder = fit(training, run, fabric, console, f"{recipe.name} ({recipe.arm}, seed {recipe.seed})", processes)
        training.loader.skipped.update(collective.merged(training.loader.skipped))
    finally:
        if training.loader.skipped:
            add_skipped(run, training.loader.skipped, console)
    if processes.first:
        save_encoder(run.encoder_file, encoder, training.description)
    processes.meet_first()
    console.print(_summary(recipe, run), soft_wrap=True)
    return run.path


def _summary(recipe: Recipe, run: RunDir) -> str:
    trained = f"Trained on {recipe.resolved['num_images']:,} images"
    skipped = len(run.read_skipped())
    return f"{trained}; {skipped:,} unreadable images skipped ({run.skipped_file})." if skipped else f"{trained}."


def resolve(recipe: Recipe | str) -> Recipe:
    """The recipe as a run of it would write it down, without a run: everything that is left open ("auto") decided from
    the data, with reasons in resolved["because"], and what follows in steps.

    Only a few images are looked at, so those that cannot be read are counted, and what the look at all of them decides
    (storage, near-duplicates) stays open. Raises InputError for a recipe or data that cannot be used.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    splits = splits_of(recipe)
    source = listed_images(splits.pretrain, recipe.images)
    recipe = with_precision(with_channels(with_sizes(recipe, source), source))
    begin = Beginning(recipe, Console(quiet=True))
    return _resolved(recipe, build_training(recipe, splits, source, RunDir("."), begin=begin), source, begin)


def _resolved(recipe: Recipe, training: Training, source: Source, begin: Beginning) -> Recipe:
    """With what followed from the data."""
    harmonizer = training.harmonizer if isinstance(training.harmonizer, Harmonizer) else None
    if recipe.harmonizer.options.get("anchors") == "auto":
        reason = "at least 50 images to a region; at most 100 (the paper's) and embedding width + 1"
        recipe = because(recipe, "harmonizer.anchors", reason)
    start = training.progress(0)
    facts = {
        "num_images": len(source),
        "channels": source.channels,
        "bits": source.bits,
        "steps_per_epoch": training.loader.steps_per_epoch,
        "total_steps": training.total_steps,
        "embedding_dim": training.method.embedding_dim,
        "parameters": sum(parameter.numel() for parameter in training.method.encoder.parameters()),
        "anchors": len(harmonizer.anchors) if harmonizer else None,
        "warm_up_steps": harmonizer.warm_up.steps(start) if harmonizer else None,
        "ramp_steps": harmonizer.ramp.steps(start) if harmonizer else None,
        **({"population": "streaming"} if harmonizer and isinstance(source, Stream) else {}),
    }
    return replace(recipe, resolved=recipe.resolved | facts | begin.resolved)


def _check_branch(branch: RunDir, source: Source, training: Training) -> Recipe:
    """The recipe of the run to branch off, if it has reached the end of its warm-up, on these images."""
    if branch.images_file.exists() and branch.read_images() != [source.location(i) for i in range(len(source))]:
        raise InputError(f"{branch.path} was trained on other images; branch off a run on the same ones.")
    begun = Recipe.from_json(branch.read_recipe())
    _check_epochs(branch, begun, training)
    check_branch(branch, begun.resolved["warm_up_steps"])
    return begun


def _revision() -> str | None:
    """The commit of this code, where it runs from a checkout of its own and git is there."""
    file = Path(__file__)
    asked = (["ls-files", "--error-unmatch", file.name], ["rev-parse", "HEAD"])
    try:
        tracked, head = (
            subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, check=False)
            for words in asked
        )
    except OSError:
        return None
    return head.stdout.strip() or None if tracked.returncode == 0 else None


def environment(fabric: Fabric) -> dict[str, Any]:
    """What the run ran on."""
    packages = ("evensphere", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn")
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "processes": fabric.world_size,
        "revision": _revision(),
        "command": " ".join(sys.argv),
    }
