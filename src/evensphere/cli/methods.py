"""`evensphere methods`: the self-supervised methods there are."""

from __future__ import annotations

import typer

from evensphere.methods import METHOD_INFO

NAME = "methods"


def run() -> None:
    """List the self-supervised methods, each usable with GH on top and without."""
    for name, info in METHOD_INFO.items():
        typer.echo(f"{name:12} {info.paper}; needs {info.needs}; cost {info.cost} x SimCLR")
    typer.echo("\nUse: evensphere train RECIPE --set method=NAME; with GH by default, without: --arm base")
