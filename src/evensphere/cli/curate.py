"""`evensphere curate RUN|PATH`: a flatter subset, or sampling weights, for anybody's trainer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.options import Trust

NAME = "curate"


def run(
    target: Annotated[
        str, typer.Argument(metavar="RUN|PATH", help="A finished run folder, or images (a path, or a data set's name).")
    ],
    size: Annotated[int, typer.Option(help="Images of the subset.")],
    out: Annotated[Path, typer.Option(help="Folder to write the list, the weights and their card to.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Other images for a run's encoder, or where a data set given by name lies."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="For images without a run: a timm model [default: simple image statistics].")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Its weights: a .safetensors file, or one of torch with nothing but tensors; or a run's "
            "encoder.safetensors, without --backbone."
        ),
    ] = None,
    level: Annotated[
        list[int] | None,
        typer.Option(
            help="Clusters of a level, repeated from fine to coarse [default: 1/16 of the images, 1/128 ...]."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
    trust: Trust = False,
) -> None:
    """Choose a subset in which common things take less room, by hierarchical k-means."""
    from evensphere.cli.reading import Reading
    from evensphere.curation.curate import curate, write_curated
    from evensphere.rundir import RunDir

    with Reading("Looking at all images once") as reading:
        curated = curate(target, size, data or (), backbone, weights, level or None, seed, reading, trust)
    files = write_curated(curated, out)
    say(curated.verdict)
    say(f"Written: {', '.join(map(str, files))}")
    given = " ".join(f"--data {shlex.quote(one)}" for one in data or ())
    if not RunDir(target).recipe_file.is_file():
        given = f"--data {shlex.quote(target)}"
    say(f"Next: evensphere train folder {given} --set images={shlex.quote(str(files[0]))}".replace("  ", " "))
