"""`evensphere data`: the data sets there are."""

from __future__ import annotations

import typer

from evensphere.data import SOURCE_INFO

NAME = "data"


def run() -> None:
    """List the data sets: size, classes, licence and how to get them."""
    for name, info in SOURCE_INFO.items():
        typer.echo(f"{name}: {info.summary}")
        for title, text in info._asdict().items():
            if title != "summary":
                typer.echo(f"    {title.replace('_', ' '):11} {text}")
