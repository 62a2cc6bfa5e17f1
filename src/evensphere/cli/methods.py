"""`evensphere methods`: the self-supervised methods there are."""

from __future__ import annotations

import typer

from evensphere.methods import METHOD_INFO
from evensphere.recipes import STAGES

NAME = "methods"


def run() -> None:
    """List the self-supervised methods, each usable with GH on top and without, and what is made of several runs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Self-supervised methods, each with GH on top or without", title_justify="left")
    for title in ("name", "paper", "needs", "cost", "streams"):
        table.add_column(title, justify="right" if title == "cost" else "left")
    for name, info in METHOD_INFO.items():
        table.add_row(name, info.paper, info.needs, f"{info.cost:.1f}", "yes" if info.streams else "no")
    Console(width=110, highlight=False).print(table)
    typer.echo("cost: of a training step, relative to SimCLR. streams: works without numbering the images.")
    typer.echo("Use: evensphere train RECIPE --set method=NAME; with GH by default, without: --arm base")
    typer.echo("\nRuns in stages, on top of any method (--set stages=NAME):")
    for name, (_, summary) in STAGES.items():
        typer.echo(f"{name:8} {summary}")
