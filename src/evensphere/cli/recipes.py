"""`evensphere recipes`: the recipes there are."""

from __future__ import annotations

import typer

from evensphere.recipes import ARMS, RECIPES

NAME = "recipes"


def run() -> None:
    """List the recipes and their arms."""
    for name, (_, summary) in RECIPES.items():
        typer.echo(f"{name:18} {summary}")
    typer.echo("\nArms, for a fair comparison (--arm):")
    for name, summary in ARMS.items():
        typer.echo(f"{name:18} {summary}")
    typer.echo("\nUse: evensphere train RECIPE [--arm ARM] [--data PATH] [--set NAME=VALUE]...")
