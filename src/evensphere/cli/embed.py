"""`evensphere embed RUN --out FILE`: a vector for each image, with its path, density and region."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.options import Trust
from evensphere.rundir import Which

NAME = "embed"


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    out: Annotated[Path, typer.Option(help="A .parquet file, or an .npy file (with a .csv beside it).")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="Images of any kind (repeat for several folders) [default: the run's own]."),
    ] = None,
    encoder: Annotated[Which, typer.Option(help="last; or best on validation images while training.")] = "last",
    density: Annotated[
        bool, typer.Option(help="How densely others lie around each image; takes time for many images.")
    ] = True,
    trust: Trust = False,
) -> None:
    """Embed images by a frozen encoder; write vectors, paths, densities and GH's regions."""
    from evensphere.cli.reading import Reading
    from evensphere.export.embeddings import embed

    with Reading("Embedding") as reading:
        made = embed(folder, out, data or (), encoder, density, reading, trust)
    count, width = made.features.shape
    say(f"{count:,} images, {width} features each." + (f" No regions: {made.no_region}." if made.no_region else ""))
    if made.skipped:
        say(f"{len(made.skipped):,} could not be read; they are listed in {made.files[-1]}.")
    say(f"Written: {', '.join(map(str, made.files))}")
