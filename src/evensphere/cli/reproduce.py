"""`evensphere reproduce TABLE`: a table of experiments, resumable cell by cell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import plain_console, say
from evensphere.reproduce import DIRECT, SCALES, TABLES

NAME = "reproduce"
_TABLES = "; ".join(f"{name}: {summary}" for name, summary in TABLES.items())
_SCALES = "; ".join(f"{name}: {summary}" for name, summary in SCALES.items())


def run(
    table: Annotated[str, typer.Argument(help=_TABLES)],
    scale: Annotated[str, typer.Option(help=_SCALES)] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of each arm, with the seeds from 0 on; 3 for a claim.")] = 3,
    data: Annotated[str | None, typer.Option(help="Where the data set of the table at that scale lies.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write [default: runs/reproduce/SCALE].")] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="For transfer: labelled images to score on, a folder with train and test (and val) inside or one of "
            "class folders; repeat for several.",
        ),
    ] = None,
    no_train: Annotated[
        bool,
        typer.Option("--no-train", help="Make the table of the cells that are trained and scored, and train no other."),
    ] = False,
) -> None:
    """Run a table of experiments. Interrupted, the same command goes on; in a second terminal it shares the work."""
    from evensphere.reproduce.run import reproduce

    folder = reproduce(table, scale, seeds, data, out, plain_console(stderr=True), to or (), no_train)
    of_runs = "" if table in DIRECT else f", {table}.parquet and, run by run, {table}-runs.html"
    say((folder / f"{table}.md").read_text())
    say(f"Written: {folder / f'{table}.html'}, {table}.md, {table}.tex{of_runs}")
