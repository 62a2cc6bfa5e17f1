"""`evensphere report RUN...`: a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.mapping import draw
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
            help="With --map: where the run's images lie now, if they have moved (repeat for several folders)."
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --map: run code of their own that the runs' recipes name.")
    ] = False,
) -> None:
    """Write an offline page about one or several runs."""
    from evensphere.report import write_report

    for folder in runs if draw_map else []:
        if not RunDir.existing(folder).map_file.exists():
            draw(folder, data=data or (), trust=trust)
    say(f"Written: {write_report(runs, out)}")
