"""`evensphere rare RUN`: the images of the sparsest places, to look at and to label first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.options import Trust

NAME = "rare"


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write the lists and their contact sheets to.")] = Path("rare"),
    budget: Annotated[int, typer.Option(help="Images wanted.")] = 200,
    data: Annotated[
        list[str] | None,
        typer.Option(help="Other images for the run's encoder (repeat for several folders) [default: the run's own]."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the regions.")] = 0,
    trust: Trust = False,
) -> None:
    """List the rarest images, no two alike, with what looks broken set apart."""
    from evensphere.cli.reading import Reading
    from evensphere.curation.rare import find_rare, write_rare

    with Reading("Looking at all images once") as reading:
        found = find_rare(folder, budget, data or (), seed, reading, trust)
    files = write_rare(found, out)
    say(found.look.verdict)
    junk = f"; {len(found.junk):,} suspected to be junk" if found.junk else ""
    say(f"{len(found.rare):,} of {len(found.look.index):,} images{junk}.")
    say(f"Written: {', '.join(map(str, files))}")
