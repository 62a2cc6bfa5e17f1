"""From a recipe to a run folder, and from a run folder to its numbers: where names become objects."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.encoded import as_text
from evensphere.data.lists import read_list
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Source, Splits, take_listed
from evensphere.data.stream import Stream
from evensphere.data.stream_loader import StreamLoader
from evensphere.disk import check_writable
from evensphere.engine.checkpoint import branch_checkpoint, load_encoder, read_checkpoint, save_encoder
from evensphere.engine.compilation import check_compiler
from evensphere.engine.evaluate import Evaluation, evaluate_encoder, features_of, validation_monitor
from evensphere.engine.micro_batches import normalises_by_parts
from evensphere.engine.predictions import Predictions, write_predictions
from evensphere.engine.preflight import preflight
from evensphere.engine.processes import Processes, together
from evensphere.engine.sharding import Sharding
from evensphere.engine.trackers import tracked
from evensphere.engine.train import StepModule, Training, fit
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods.base import Method
from evensphere.metrics.groups import class_groups
from evensphere.ops import collective
from evensphere.ops.schedule import Duration
from evensphere.recipes.beginning import Beginning
from evensphere.recipes.bursts import Groups, fingerprints_for, group_bursts, groups_of, weights_of
from evensphere.recipes.channels import with_channels
from evensphere.recipes.network import build_encoder, build_method, teaching
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import (
    Recipe,
    because,
    collection,
    get_recipe,
    with_precision,
    with_sizes,
    without_auto,
)
from evensphere.recipes.sharded import check_encoder, check_recipe
from evensphere.recipes.storing import look_at, pixels_again
from evensphere.recipes.trust import trusting
from evensphere.rundir import ReadOnlyRun, RunDir, Split, Which
from evensphere.values import check_memory

# --- train ------------------------------------------------------------------------------------------------------------


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
        if processes.sharding != "none":
            check_encoder(recipe, training.method.encoder)
        return _finish(training, recipe, run, fabric, console, processes)


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
        _check_stream(splits.pretrain, recipe, ready is not None, console)
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
    run.create()
    with run.lock():
        if run.recipe_file.exists():  # since it was looked for
            begun_recipe(recipe, run, resume=False)
        run.begin_anew()
        run.write_skipped(skipped)
        run.write_json(run.environment_file, environment(fabric))
        if recipe.images is not None or groups is not None or not isinstance(source, ArraySource | Stream):
            write_images(run, source, groups)
        if branch is not None:
            _branch(run, branch, recipe)
        run.write_json(run.recipe_file, recipe.to_json())  # last: from here on the folder is a run
        return _finish(training, recipe, run, fabric, console, processes)


def revisit(run: RunDir, step: int) -> tuple[Training, Splits]:
    """The parts of a run as they were after `step` steps, on the CPU, to look at and not to go on with.

    step: one that a checkpoint was kept of (see Recipe.snapshot_every).
    """
    recipe = Recipe.from_json(run.read_recipe())
    splits = splits_of(recipe)
    splits = splits._replace(pretrain=images_of(run, splits.pretrain))
    pixels = pixels_again(recipe, splits.pretrain, torch.device("cpu"), Console(quiet=True))
    training = build_training(recipe, splits, splits.pretrain, run, pixels, groups_of(run))
    StepModule(training.method, training.harmonizer).load_state_dict(read_checkpoint(run, step)["model"])
    return training, splits


def build_training(
    recipe: Recipe,
    splits: Splits,
    source: Source,
    run: RunDir,
    pixels: Source | None = None,
    groups: Groups | None = None,
    begin: Beginning | None = None,
) -> Training:
    """All parts of a run of a recipe whose sizes are filled in (see `with_sizes`).

    source: the images to train on. run: its folder, which need not be there yet; teachers are found from it. pixels:
    the same images as the loader reads them (see `storing.Images`). groups: of which each counts once in the population
    statistics. begin: gives the encoder the weights it begins with, where that is not what a checkpoint does.
    """
    views: Views = build("views", recipe.views, seed=recipe.seed)
    epochs, batch_size = recipe.size
    _check_batch(min(batch_size, len(source)), views, source.channels)
    how = (batch_size, views, recipe.seed, recipe.workers)
    pixels = source if pixels is None else pixels
    loader = StreamLoader(pixels, *how) if isinstance(pixels, Stream) else Loader(pixels, *how)
    method = build_method(recipe, source.channels, len(source), begin, **teaching(recipe, run, source))
    if isinstance(source, Stream) and "index" in method.needs:
        source.refuse(f"the method {recipe.method.name}")
    _check_views(recipe.method.name, method, views)
    if recipe.micro_batches > 1 and collective.world_size() > 1 and normalises_by_parts(method.encoder):
        raise InputError(
            f"micro_batches = {recipe.micro_batches} was given with {collective.world_size()} processes, which share "
            "the encoder's BatchNorm; give more processes instead, or a backbone without BatchNorm (a ViT)."
        )
    # a run on some of the images is scored by the many, medium and few of the whole data set
    scored = splits if recipe.images is not None else splits._replace(pretrain=source)
    return Training(
        loader=loader,
        views=views,
        method=method,
        harmonizer=build_harmonizer(recipe.harmonizer, method, loader, groups),
        optimizer=_build_optimizer(recipe, method, source),
        learning_rate=build("schedule", recipe.schedule, epochs=epochs),
        epochs=epochs,
        seed=recipe.seed,
        evaluate_every=Duration.parse(recipe.evaluate_every),
        checkpoint_every=Duration.parse(recipe.checkpoint_every),
        keep_checkpoints=recipe.keep_checkpoints,
        snapshot_every=None if recipe.snapshot_every is None else Duration.parse(recipe.snapshot_every),
        compiled=recipe.compile,
        micro_batches=recipe.micro_batches,
        monitor=validation_monitor(scored, views, recipe.monitor, recipe.seed),
        description={"backbone": asdict(recipe.backbone), "views": asdict(recipe.views)},
    )


def build_harmonizer(
    part: Part, method: Method, loader: Loader, groups: Groups | None = None
) -> Harmonizer | NoHarmonizer:
    """What a part says, for the embeddings of a method and the images of a loader, of which each group counts once."""
    harmonizer: Harmonizer | NoHarmonizer = build(
        "harmonizer",
        part,
        dim=method.embedding_dim,
        num_samples=len(loader.source),
        steps_per_epoch=loader.steps_per_epoch,
        sample_weights=weights_of(groups),
        **({} if loader.indexed else {"population": "streaming"}),
    )
    return harmonizer


def _build_optimizer(recipe: Recipe, method: Method, source: Source) -> torch.optim.Optimizer:
    def features_by(run: str) -> Tensor:
        if isinstance(source, Stream):
            source.refuse(f"the optimizer {recipe.optimizer.name}")
        return _features(RunDir.existing(run), source)

    optimizer: torch.optim.Optimizer = build(
        "optimizer", recipe.optimizer, parameters=method.parameters(), features_of=features_by
    )
    if getattr(optimizer, "image_weights", None) is not None and not method.per_sample:
        raise InputError(
            f"The optimizer {recipe.optimizer.name} weighs images, but the loss of the method {recipe.method.name} is "
            "not made of one for each image; choose another method, or the optimizer asam."
        )
    return optimizer


def _features(run: RunDir, source: Source) -> Float[Tensor, "n d"]:
    """What the encoder of a finished run makes of images, seen as evaluation sees them."""
    recipe = Recipe.from_json(run.read_recipe())
    views: Views = build("views", recipe.views, seed=recipe.seed)
    encoder = build_encoder(recipe, recipe.resolved["channels"])
    load_encoder(run, encoder)
    encoder.to(Fabric(accelerator="auto", devices=1).device)
    features, index = features_of(encoder, source, views)
    if len(index) < len(source):
        raise InputError(f"{len(source) - len(index)} image(s) can no longer be read; start a new run without them.")
    return features


def _check_batch(images: int, views: Views, channels: int) -> None:
    """Refuse views that no batch of which would fit into memory, before one is made."""
    sides = [views.size] * views.num_views + [views.local_size] * views.local_views
    pixels = 4.0 * images * channels * sum(side**2 for side in sides)
    check_memory(
        f"A batch of {images:,} images, each in {len(sides)} views of {views.size} x {views.size} pixels,", pixels
    )


def _check_views(name: str, method: Method, views: Views) -> None:
    """Refuse views that the method has no use for, or too few of them."""
    if views.local_views and not method.local_views:
        raise InputError(
            f"views.local_views = {views.local_views} was given, but the method {name} makes no use of local views; "
            "set it to 0 or choose a method with multi-crop (see `evensphere methods`)."
        )
    if views.num_views != (method.full_views or max(2, views.num_views)):
        wanted = method.full_views or "2 or more"
        raise InputError(f"views.num_views = {views.num_views} was given, but the method {name} compares {wanted}.")


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
            _add_skipped(run, training.loader.skipped, console)
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


def _branch(run: RunDir, source: RunDir, recipe: Recipe) -> None:
    """Take over the source's first stage."""
    same_images = not source.images_file.exists() or source.read_images() == run.read_images()
    if not same_images:
        raise InputError(f"{source.path} was trained on other images; branch off a run on the same ones.")
    begun = Recipe.from_json(source.read_recipe())
    branch_checkpoint(source, begun.resolved["warm_up_steps"], run, recipe.heritage(begun))


# --- the images of a run ----------------------------------------------------------------------------------------------


def splits_of(recipe: Recipe) -> Splits:
    """The data set of a recipe. What a begun run found out about its images ("auto") is not asked again, lest a folder
    that has changed be read otherwise."""
    known = _how_read(recipe)
    splits: Splits = build("data", without_auto(recipe.data) if known else recipe.data, **known)
    return splits


def _how_read(recipe: Recipe) -> dict[str, int]:
    return {name: recipe.resolved[name] for name in ("channels", "bits") if name in recipe.resolved}


def _check_stream(stream: Stream, recipe: Recipe, in_stages: bool, console: Console) -> None:
    """Refuse what needs the images' numbers, and say what is done in its place."""
    if in_stages:
        stream.refuse("a run in stages")
    if recipe.images is not None:
        stream.refuse("a run on some of the images")
    if recipe.harmonizer.name == "none":
        return
    if recipe.harmonizer.options.get("population") == "exact":
        stream.refuse("the exact population of the harmonizer")
    console.print("Population statistics are averaged over the batches (population=streaming): the data is a stream.")


def listed_images(source: Source, file: str | None) -> Source:
    """The images that a list names (see Recipe.images), all of them where there is none."""
    if file is None:
        return source
    return take_listed(source, [as_text(path) for path in read_list(file).paths])


def write_images(run: RunDir, source: Source, groups: Groups | None = None) -> None:
    """images.json: which file is image i, and which of them count once. Memories have a row for each, so a resumed run
    must number them alike; and it must weigh them alike."""
    content = {"images": [source.location(i) for i in range(len(source))]}
    run.write_json(run.images_file, content if groups is None else content | {"groups": groups.tolist()})


def images_of(run: RunDir, source: Source) -> Source:
    """The images the run began with, in its order; files that came later are left out."""
    if isinstance(source, Stream):
        began_with = run.read_recipe()["resolved"]["num_images"]
        if len(source) != began_with:
            raise InputError(
                f"{source.name} has epochs of {len(source)} images, and {run.path} was begun with {began_with}; "
                "give the shards it was begun with."
            )
        return source
    if isinstance(source, ArraySource) and not run.images_file.exists():
        return source
    wanted, present = run.read_images(), {source.location(i) for i in range(len(source))}
    gone = [location for location in wanted if location not in present]
    if gone:
        raise InputError(
            f"{len(gone)} image(s) of {run.path} are gone, the first being {gone[0]}; put them back to resume."
        )
    return take_listed(source, wanted)


def _add_skipped(run: RunDir, failed: dict[str, str], console: Console) -> None:
    known = run.read_skipped()
    run.write_skipped([*known, *(item for item in failed.items() if item not in known)])
    console.print(f"{len(failed)} images could not be read while training; they are listed in {run.skipped_file}.")


def environment(fabric: Fabric) -> dict[str, Any]:
    """What the run ran on."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    packages = ("evensphere", "torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn")
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if cuda else f"CPU, {os.cpu_count()} cores ({platform.machine()})",
        "threads": torch.get_num_threads(),
        "processes": fabric.world_size,
        "revision": revision.stdout.strip() or None,
        "command": " ".join(sys.argv),
    }


# --- evaluate ---------------------------------------------------------------------------------------------------------


def evaluate(
    run: Path | str,
    data: Path | str | Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    console: Console | None = None,
    split: Split = "test",
    encoder: Which = "last",
    out: Path | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Metrics of a run's finished encoder, written to RUN/eval.json beside those already there, and returned.

    data: labelled images: a path of any kind (a folder, list, table, zip, tar ...), several paths that are one
        collection, or the name of a data set. None takes the labelled splits of the run's own.
    metrics: names (see METRICS); None takes the recipe's.
    split: "validation" scores the validation images instead, into RUN/validation.json, and leaves the test images
        alone: so that settings are chosen.
    encoder: "best" takes the one whose accuracy on validation images was highest while training, and writes
        RUN/eval-best.json. It was chosen by labels: those of the validation images.
    out: another file to write to, for a run that is read-only.
    trust: whether code of the user's own, which the run's recipe names, may run.
    Raises InputError before anything is computed if there is no such encoder, or the file cannot be written.
    """
    console = console or Console(quiet=True)
    folder = RunDir.existing(run)
    out = out or folder.results_file(split, encoder)
    check_writable(out)
    with trusting(trust):
        recipe = Recipe.from_json(folder.read_recipe())
    views: Views = build("views", recipe.views, seed=recipe.seed)
    splits = splits_to_score(recipe, data)
    if split == "validation":
        splits = _scored_on_validation(splits)
    untrained = build_encoder(recipe, splits.pretrain.channels)
    trained = copy.deepcopy(untrained)
    load_encoder(folder, trained, encoder)
    device = Fabric(accelerator="auto", devices=1).device
    for one in (untrained, trained):
        one.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with console.status("Evaluating the untrained encoder"):
        floor = evaluate_encoder(untrained, splits, views, ["knn"]).results["knn"]
    with console.status("Evaluating the trained encoder"):
        evaluation = evaluate_encoder(trained, splits, views, list(metrics or recipe.metrics))
    evaluation.results["knn_untrained"] = floor
    return record_results(folder, split, recipe, splits, data, evaluation, encoder, out)


def record_results(
    folder: RunDir,
    split: Split,
    recipe: Recipe,
    splits: Splits,
    data: Path | str | Sequence[str] | None,
    evaluation: Evaluation,
    encoder: Which = "last",
    out: Path | None = None,
) -> dict[str, Any]:
    """Write results and predictions into the run, beside those already there of the same images; returns them all.

    out: another file for the results; predictions are kept beside the run's own results of its last encoder only.
    """
    own = folder.results_file(split, encoder)
    counts = splits.train_counts() or []
    results: dict[str, Any] = evaluation.results | {
        "classes": list(splits.pretrain.class_names or ()),
        "train_counts": counts,
        "groups": class_groups(counts, splits.group_rule),
        "group_rule": splits.group_rule,
        "settings": {"data": recipe.data.name if data is None else ", ".join(_paths(data))},
    }
    earlier = folder.read_results(split, encoder)
    if earlier.get("settings") == results["settings"]:  # other metrics of the same encoder on the same images
        results = earlier | results
    folder.write_json(out or own, results)
    if encoder == "last" and out in (None, own):
        _keep_predictions(folder, split, evaluation, splits.test)
    return results


def _keep_predictions(run: RunDir, split: Split, evaluation: Evaluation, source: Source | None) -> None:
    """Beside the results, image by image, so that runs can be compared on the same images."""
    assert source is not None, "there is a test split where there are results"
    images = [source.location(i) for i in evaluation.numbers.tolist()]
    write_predictions(run, split, Predictions(images, evaluation.labels, evaluation.predicted))


def splits_to_score(recipe: Recipe, data: Path | str | Sequence[str] | None) -> Splits:
    """The images a run is scored on: its own, or others (see `evaluate`)."""
    return splits_of(recipe) if data is None else _labelled(data, recipe)


def _labelled(data: Path | str | Sequence[str], recipe: Recipe) -> Splits:
    """The splits of images to evaluate on, read like the run's own. Raises InputError if they have no labels."""
    splits: Splits = build("data", collection(*_paths(data)), **_how_read(recipe))
    if splits.probe is None or splits.test is None:
        raise InputError(
            f"{splits.pretrain.name} has no labels to evaluate with: put every image in a sub-folder named after its "
            "class (or give each a label in a list or table), with three images or more in at least two classes, or "
            "divide them into train and test."
        )
    return splits


def _paths(data: Path | str | Sequence[str]) -> list[str]:
    return [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]


def _scored_on_validation(splits: Splits) -> Splits:
    """The validation images in the test images' place; nothing is left to choose a probe's own settings on."""
    if splits.validation is None:
        raise InputError(
            f"{splits.pretrain.name} has no validation images; "
            "hold some out, such as with --set data.validation_per_class=50 when training."
        )
    return splits._replace(validation=None, test=splits.validation)
