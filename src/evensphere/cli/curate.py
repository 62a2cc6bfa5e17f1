"""`evensphere curate RUN|PATH`: a flatter subset, or sampling weights, for anybody's trainer."""

from __future__ import annotations

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
    from evensphere.cli.next_command import command, given_data
    from evensphere.cli.reading import Reading
    from evensphere.curation.curate import curate, write_curated
    from evensphere.recipes.frozen import data_of

    with Reading("Looking at all images once") as reading:
        curated = curate(target, size, data or (), backbone, weights, level or None, seed, reading, trust)
    files = write_curated(curated, out)
    say(curated.verdict)
    say(f"Written: {', '.join(map(str, files))}")
    given = given_data(data_of(target, data or (), trust))
    say(f"Next: {command('train', 'folder', *given, '--set', f'images={files[0]}')}")
