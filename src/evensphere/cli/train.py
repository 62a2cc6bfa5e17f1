"""`evensphere train RECIPE`: pretrain an encoder into a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evensphere.cli.console import plain_console, say
from evensphere.cli.mapping import IMAGES, draw_after_training

NAME = "train"


def run(
    recipe: Annotated[str, typer.Argument(help="What to train; see `evensphere recipes`.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Your images (a folder, list, table, zip, tar, array ...; repeat for several), or where the recipe's "
            "data set lies, or a data set's name."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write [default: runs/RECIPE-ARM-seedN].")] = None,
    arm: Annotated[
        str, typer.Option(help="gh; base (the method alone); two-stage (no GH, but GH's learning rate).")
    ] = "gh",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change the recipe: epochs=3, seed=5, method.temperature=0.2, harmonizer=none ..."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, if it was begun.")] = False,
    branch: Annotated[
        Path | None, typer.Option(help="Start from where this run's warm-up ended, instead of from nothing.")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Weights to begin with: of torchvision, timm, Hugging Face (a folder), Lightly, solo-learn, MoCo ..."
        ),
    ] = None,
    devices: Annotated[
        int | None, typer.Option(help="Processes on each machine, each with a GPU of its own if there are any.")
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Machines; start the same command on each.")] = None,
    sharding: Annotated[
        Literal["none", "fsdp"],
        typer.Option(help="fsdp: each process keeps a part of the parameters (experimental; docs/processes.md)."),
    ] = "none",
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images that cannot be read, instead of leaving them out.")
    ] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="Also tell tensorboard or wandb of losses and accuracies (repeatable).")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what would be chosen for these images and why; train nothing.")
    ] = False,
    images_on_map: Annotated[
        int,
        typer.Option(
            "--map", min=0, max=IMAGES, help="Images on the report's map of what was learnt, at most; 0 draws none."
        ),
    ] = IMAGES,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run code that a begun or borrowed run names and this command does not.")
    ] = False,
) -> None:
    """Pretrain an encoder on unlabelled images."""
    from dataclasses import replace

    from evensphere.cli.next_command import command
    from evensphere.recipes.recipe import get_recipe, with_data
    from evensphere.recipes.run import train

    chosen = with_data(get_recipe(recipe, arm), *(data or ())).set(setting or [])
    chosen = chosen if init is None else replace(chosen, init=str(init))
    if explain:
        from evensphere.recipes import explanation

        explanation.print_explanation(explanation.explain(chosen), plain_console())
        return
    out = out or Path("runs") / f"{chosen.name}-{chosen.arm}-seed{chosen.seed}"
    train(
        chosen,
        out,
        resume=resume,
        branch=branch,
        devices=devices,
        console=plain_console(stderr=True),
        strict=strict,
        trust=trust,
        nodes=nodes,
        sharding=sharding,
        trackers=track or (),
    )
    draw_after_training(out, images_on_map, data or (), trust, chosen.import_paths)
    say(f"Trained: {out}\nNext: {command('evaluate', out)}   (without labels: {command('diagnose', out)})")
