"""`evensphere finetune RUN`: what pretraining is worth to whoever has labels on the long tail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evensphere.cli.console import plain_console, say
from evensphere.cli.options import Trust

NAME = "finetune"


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    data: Annotated[
        list[str] | None, typer.Option(help="Labelled images, as for evaluate [default: the run's own data].")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Of each training; there are 8 with two learning rates.")] = 30,
    learning_rate: Annotated[
        list[float] | None, typer.Option(help="Rates to choose from on validation images [default: 0.03 and 0.1].")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the head's first weights, the order and the crops.")] = 0,
    trust: Trust = False,
) -> None:
    """Fine-tune the whole encoder on long-tailed labels in five ways, and the same network from scratch."""
    from evensphere.cli.evaluate import group_table
    from evensphere.engine.finetune import METHODS, Tuning
    from evensphere.recipes.finetuning import finetune_run
    from evensphere.report.record import METRICS
    from evensphere.rundir import RunDir

    tuning = Tuning(epochs, batch, seed=seed)
    if learning_rate:
        tuning = Tuning(epochs, batch, tuple(learning_rate), seed=seed)
    results = finetune_run(folder, data or None, tuning, plain_console(stderr=True), trust)
    names = [f"{start}_{method}" for method in METHODS for start in ("finetune", "scratch")]
    rows = {METRICS[name]: results[name] for name in names}
    plain_console(width=110).print(
        group_table(f"{folder}: accuracy in % of networks trained on the tail's labels", rows)
    )
    say(worth(results, METHODS))
    say(f"Written: {RunDir(folder).evaluation_file}")


def worth(results: dict[str, Any], methods: tuple[str, ...]) -> str:
    """What pretraining changed, by the method that is best from scratch on average."""
    best = max(methods, key=lambda method: float(results[f"scratch_{method}"]["average"]))
    tuned, scratch = results[f"finetune_{best}"], results[f"scratch_{best}"]
    gains = [
        f"{group} {tuned[group] - scratch[group]:+.1f}"
        for group in ("few", "medium", "many", "average")
        if tuned[group] is not None
    ]
    return f"Pretrained against from scratch, {best}: {', '.join(gains)} points (one seed, so a hint)."
