"""`evensphere bench`: what a training step costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import plain_console

NAME = "bench"


def run(
    recipe: Annotated[str, typer.Option(help="What to measure; see `evensphere recipes`.")] = "cifar100-lt-small",
    data: Annotated[str | None, typer.Option(help="As for train [default: made-up pixels].")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step [default: the recipe's].")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Change the recipe, such as backbone=resnet18.")
    ] = None,
    images: Annotated[int, typer.Option(help="How many images are made up.")] = 10_000,
    seconds: Annotated[float, typer.Option(help="For the timing; more if 5 rounds take longer.")] = 100,
    rounds: Annotated[
        int | None, typer.Option(help="How often everything is timed, whatever time it takes [default: by --seconds].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rows as JSON lines to this file.")] = None,
) -> None:
    """Time a training step against its bare backbone: GH, views, parts, operations. Needs no data set."""
    from evensphere.bench import bench
    from evensphere.recipes.recipe import get_recipe

    settings = [*(setting or []), *([] if batch is None else [f"batch_size={batch}"])]
    bench(get_recipe(recipe).set(settings), data, images, seconds, rounds, out, plain_console())
