"""`evensphere toy`: what GH does, in two dimensions, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import plain_console, say

NAME = "toy"


def run(
    out: Annotated[Path, typer.Option(help="The picture to write (PNG).")] = Path("toy.png"),
    seeds: Annotated[int, typer.Option(min=1, help="Pairs of networks; the caption is about all of them.")] = 5,
    animation: Annotated[Path | None, typer.Option(help="Also write how it came about (GIF).")] = None,
) -> None:
    """Three clusters of 1,000, 100 and 10 points on a circle: contrastive learning alone, and with GH."""
    from rich.progress import track

    from evensphere.toy import ARMS, learn, toy_animation, toy_caption, toy_picture

    console = plain_console()
    pairs = [(arm, seed) for seed in range(seeds) for arm in ARMS]
    outcomes = [learn(arm, seed) for arm, seed in track(pairs, description="training", console=console)]
    toy_picture(outcomes, out)
    if animation is not None:
        toy_animation(outcomes, animation)
    say(toy_caption(outcomes))
    say("Look at: " + ", ".join(str(file) for file in (out, animation) if file is not None))
