"""`evensphere report RUN...`: a page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.mapping import draw
from evensphere.errors import InputError
from evensphere.rundir import RunDir

NAME = "report"


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several run folders, side by side.")],
    out: Annotated[Path | None, typer.Option(help="Page to write [default: RUN/report.html of the first run].")] = None,
    draw_map: Annotated[
        bool, typer.Option("--map", help="First draw the map of the images of runs that lack one; this looks at them.")
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="With --map, for one run that lacks one: where its images lie now, if they have moved (repeat for "
            "several folders)."
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --map: run code of their own that the runs' recipes name.")
    ] = False,
) -> None:
    """Write an offline page about one or several runs."""
    from evensphere.report import write_report

    asked = dict.fromkeys(runs) if draw_map else ()
    lacking = [folder for folder in asked if not RunDir.existing(folder).map_file.exists()]
    _check_data(data or (), draw_map, len(lacking))
    for folder in lacking:
        draw(folder, data=data or (), trust=trust)
    say(f"Written: {write_report(runs, out)}")


def _check_data(data: Sequence[str], draw_map: bool, lacking: int) -> None:
    """--data says where the images of one run lie: the one whose map is drawn. Raises InputError where there is none,
    or another one as well."""
    if data and not draw_map:
        raise InputError("--data was given without --map; a page needs no images, so leave it out, or add --map.")
    if data and lacking != 1:
        raise InputError(
            f"--data was given, and {lacking} of the runs lack a map; it takes the images of exactly one such run, so "
            "draw the maps run by run, or leave it out."
        )
