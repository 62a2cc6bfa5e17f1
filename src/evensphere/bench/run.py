"""`bench`: everything that is measured on one recipe, in about two minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from evensphere.bench import names as named
from evensphere.bench.clock import Rounds, interleaved, large_product
from evensphere.bench.operations import count_flop
from evensphere.bench.page import print_page
from evensphere.bench.rows import Row, counted, summarise, write_rows
from evensphere.bench.subjects import Bench, bare_step, harmonizer_operations, set_up, step_operations, subjects
from evensphere.data.source import ArraySource, Splits
from evensphere.engine.processes import Processes
from evensphere.errors import InputError
from evensphere.ops.draw import seed_for
from evensphere.recipes.building import build_training
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data, with_precision, with_sizes
from evensphere.recipes.run import environment
from evensphere.rundir import RunDir

_COUNTED_ITERATIONS = 10  # Sinkhorn's, fixed where operations are counted


def bench(
    recipe: Recipe | str = "cifar100-lt-small",
    data: str | None = None,
    images: int = 10_000,
    seconds: float = 100.0,
    rounds: int | None = None,
    out: Path | str | None = None,
    console: Console | None = None,
) -> list[Row]:
    """What a recipe's training step costs on this machine, and what of it is not the backbone.

    recipe: a Recipe or the name of one, of the arm gh.
    data: as for `train`; None makes up pixels of the size of the recipe's views, which cost as much as any.
    images: how many are made up.
    seconds: for the timing, more if 5 rounds take longer. rounds: how many, whatever time they take; at least 1.
    out: a file for the rows as JSON lines. console: where the table is shown; None shows nothing.
    Raises InputError for what cannot be benched.
    """
    console = console or Console(quiet=True)
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    _check(recipe, images, seconds, rounds, out)
    splits: Splits = Splits(_made_up(recipe, images)) if data is None else build("data", with_data(recipe, data).data)
    wanted = recipe.precision
    recipe = with_precision(with_sizes(recipe, splits.pretrain))
    fabric = Processes().fabric(recipe.precision)
    training = build_training(recipe, splits, splits.pretrain, RunDir(Path.cwd()))
    ready = set_up(recipe, training, fabric)
    context = _context(recipe, ready, _why(recipe, wanted, fabric.device), data is None)
    with console.status("Warming up") as status:
        measured = interleaved(
            subjects(ready),
            fabric.device,
            seconds,
            rounds,
            lambda done, total: status.update(f"Round {done} of {total}"),
        )
        status.update("Counting")
        rows = [*_times(measured), *_shares(measured), *_speeds(measured, ready), *_counts(ready)]
    print_page(console, rows, context)
    if out is not None:
        write_rows(Path(out), rows, context)
    return rows


# --- what is benched --------------------------------------------------------------------------------------------------


def _check(recipe: Recipe, images: int, seconds: float, rounds: int | None, out: Path | str | None) -> None:
    if recipe.stages is not None or recipe.teachers:
        raise InputError("bench measures a run in one piece; leave its stages out.")
    if recipe.harmonizer.name != "gh":
        raise InputError("bench measures steps with and without GH by itself; leave other harmonizers out.")
    if recipe.harmonizer.options.get("population", "exact") != "exact":
        raise InputError("bench measures exact and streaming population by itself; leave harmonizer.population out.")
    if images < 2 or not seconds > 0 or (rounds is not None and rounds < 1):
        raise InputError(
            f"images = {images}, seconds = {seconds} and rounds = {rounds} were given; "
            "give at least 2 images, more than 0 seconds and at least 1 round."
        )
    if out is not None and not os.access(Path(out).absolute().parent, os.W_OK):
        raise InputError(f"{out} cannot be written; make its folder first, or choose another --out.")


def _made_up(recipe: Recipe, images: int) -> ArraySource:
    """Random pixels of the size of the recipe's views, in whole batches."""
    size, batch = recipe.views.options.get("size"), recipe.batch_size
    if not isinstance(size, int) or batch == "auto":
        raise InputError(
            f"How large the images of the recipe {recipe.name} are follows from the data; give --data PATH."
        )
    channels = len(build("views", recipe.views, seed=recipe.seed).mean)
    generator = torch.Generator().manual_seed(seed_for(recipe.seed, "bench"))
    shape = (-(-images // batch) * batch, channels, size, size)
    return ArraySource("made-up images", torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator))


def _why(recipe: Recipe, wanted: str, device: torch.device) -> str:
    """Why the run has the precision that it has."""
    if wanted != "auto":
        return "as the recipe says"
    chip = "GPU" if device.type == "cuda" else "CPU"
    native = "multiplies bf16 natively" if recipe.precision == "bf16-mixed" else "does not multiply bf16 natively"
    return f"this {chip} {native}"


def _context(recipe: Recipe, ready: Bench, why: str, made_up: bool) -> dict[str, Any]:
    """What was measured on, for every line of the file."""
    loader, around = ready.exact.loader, environment(ready.fabric)
    return {
        "recipe": recipe.name,
        "network": recipe.backbone.name,
        "method": recipe.method.name,
        "batch": loader.batch_size,
        "images": len(loader.source),
        "made_up": made_up,
        "anchors": len(ready.harmonizer.anchors),
        "precision": recipe.precision,
        "precision_why": why,
        **{name: around[name] for name in ("device", "threads", "python", "packages", "revision")},
    }


# --- rows -------------------------------------------------------------------------------------------------------------


def _times(measured: Rounds) -> list[Row]:
    """One row a subject."""
    scaled = {name: [1000 * value for value in values] for name, values in measured.items()}
    return [summarise(name, values, "ms", scaled[named.BARE]) for name, values in scaled.items()]


def _shares(measured: Rounds) -> list[Row]:
    """What a step with GH consists of, round by round."""
    parts = [dict(zip(measured, values, strict=True)) for values in zip(*measured.values(), strict=True)]
    step, without, bare = named.EXACT, named.WITHOUT, named.BARE
    shares = {
        named.GH_SHARE: [1 - one[without] / one[step] for one in parts],
        named.GH_PARTS_SHARE: [(one[named.GH_LOSS] + one[named.GH_MEMORY]) / one[step] for one in parts],
        named.GH_TRAINED_SHARE: [(one[named.GH_LOSS_TRAINED] + one[named.GH_MEMORY]) / one[step] for one in parts],
        named.VIEWS_SHARE: [one[named.VIEWS] / one[step] for one in parts],
        named.BESIDE_SHARE: [1 - one[bare] / one[step] for one in parts],
    }
    return [summarise(what, [100 * value for value in values], "% of the step") for what, values in shares.items()]


def _speeds(measured: Rounds, ready: Bench) -> list[Row]:
    """Images a second and, in bf16, how near they come to what the hardware can do."""
    batch = ready.exact.loader.batch_size
    rows = [
        summarise(f"{name}, speed", [batch / value for value in measured[name]], "images/s")
        for name in (named.BARE, named.WITHOUT, named.EXACT, named.STREAMING)
    ]
    if not ready.has_ceiling:
        return rows
    step, loaded = ready.next_batch()
    flop = count_flop(bare_step(ready, ready.views(loaded, ready.exact.progress(step))))
    _, ceiling_flop = large_product(ready.fabric.device)
    ceiling = [ceiling_flop / value for value in measured[named.CEILING]]
    rows.append(summarise(f"{named.CEILING}, speed", [value / 1e12 for value in ceiling], "TFLOP/s"))
    for name in (named.BARE, named.EXACT):
        fractions = [100 * flop / value / top for value, top in zip(measured[name], ceiling, strict=True)]
        rows.append(summarise(f"{name}, of it", fractions, "%"))
    return rows


def _counts(ready: Bench) -> list[Row]:
    """Operations of a step, and of GH's share of it at two sizes."""
    taken = [float(value) for value in ready.iterations]
    without, exact = step_operations(ready)
    short, long = _COUNTED_ITERATIONS, 2 * _COUNTED_ITERATIONS
    once, twice = (harmonizer_operations(ready, size, short) for size in (1, 2))
    longer = harmonizer_operations(ready, 1, long)
    return [
        summarise(named.ITERATIONS, taken, "iterations"),
        counted(named.OPERATIONS_WITHOUT, without, "operations"),
        counted(named.OPERATIONS_WITH, exact, "operations"),
        counted(named.OPERATIONS_GH, once, "operations"),
        counted(named.OPERATIONS_GH_TWICE, twice, "operations"),
        counted(named.OPERATIONS_ITERATION, (longer - once) / (long - short), "operations"),
    ]
