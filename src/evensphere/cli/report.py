"""`evensphere report RUN...`: a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say

NAME = "report"


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several run folders, side by side.")],
    out: Annotated[Path | None, typer.Option(help="Page to write [default: RUN/report.html of the first run].")] = None,
) -> None:
    """Write an offline page about one or several runs."""
    from evensphere.report import write_report

    say(f"Written: {write_report(runs, out)}")
