"""`evensphere diagnose RUN|PATH`: what a run, or a collection of images, looks like without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import plain_console, say
from evensphere.cli.options import Moved, Trust

NAME = "diagnose"


def run(
    path: Annotated[
        str, typer.Argument(metavar="RUN|PATH", help="A run folder; or images, before any training on them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write diagnosis.json and diagnosis.html to [default: the run's; none for images]."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="For images: the timm model that --weights are of, such as resnet50.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="For images: that model's weights, a .safetensors file or one of torch with nothing but tensors; or a "
            "run's encoder.safetensors, without --backbone."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Images looked at, at most.")] = 3000,
    data: Moved = None,
    trust: Trust = False,
) -> None:
    """Say how skewed, how collapsed and how reliable things look, and what to do. No label is read."""
    from evensphere.cli.next_command import command
    from evensphere.diagnosis.diagnose import diagnose
    from evensphere.diagnosis.page import print_page
    from evensphere.rundir import RunDir

    status = plain_console(stderr=True)
    diagnosis = diagnose(path, out, backbone, weights, images, status, trust, data or ())
    print_page(diagnosis, plain_console())
    is_run = RunDir(path).recipe_file.is_file()
    if (folder := out or (Path(path) if is_run else None)) is not None:
        say(f"Written: {folder / 'diagnosis.html'} (with pictures) and diagnosis.json")
    if is_run:
        say(f"Next: {command('evaluate', path)}   (labels are what settles it)")
    else:
        say(f"Next: {command('train', 'folder', '--data', path, '--out', 'RUN')}, then evensphere diagnose RUN")
