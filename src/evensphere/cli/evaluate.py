"""`evensphere evaluate RUN`: score a run's frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evensphere.cli.console import plain_console, say
from evensphere.cli.options import Trust
from evensphere.metrics import DESCRIPTIONS, METRICS
from evensphere.rundir import RunDir, Split, Which

NAME = "evaluate"
SHOWN = 5  # classes that cannot be judged


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Labelled images (class folders, a list, table, zip, tar ...; repeat for several folders), or a data "
            "set's name [default: the run's own data]."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(METRICS)}; repeat for several [default: the recipe's]; see docs/evaluation.md."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="test; or validation, by which settings are chosen (writes validation.json).")
    ] = "test",
    encoder: Annotated[
        Which, typer.Option(help="last; or best on validation images while training (writes eval-best.json).")
    ] = "last",
    out: Annotated[
        Path | None, typer.Option(help="Scores to write, where the run is read-only [default: RUN/eval.json].")
    ] = None,
    trust: Trust = False,
) -> None:
    """Score a frozen encoder with kNN and linear probes, by class frequency."""
    from evensphere.cli.next_command import command
    from evensphere.recipes.scoring import evaluate

    results = evaluate(folder, data or None, metric, plain_console(stderr=True), split, encoder, out, trust)
    plain_console(width=110).print(group_table(f"{folder}: accuracy in %", groups_of(results), split))
    for sentence in [*doubts(results), *descriptions(results)]:
        say(sentence)
    say(f"Written: {out or RunDir(folder).results_file(split, encoder)}\nNext: {command('report', folder)}")


def doubts(results: dict[str, Any]) -> list[str]:
    """How far other test images might move the first metric's numbers, and which classes they say nothing of."""
    title, scores = next((title, one) for title, one in groups_of(results).items() if "intervals" in one)
    known = {group: found for group, found in scores["intervals"].items() if found is not None}
    spelled = ", ".join(f"{group} {low:.1f} to {high:.1f}" for group, (low, high) in known.items())
    said = [f"{title}, for other test images of these classes (95 %): {spelled}."]
    unjudged = [results["classes"][c] for c in scores["unjudged"]]
    if unjudged:
        names = ", ".join(unjudged[:SHOWN]) + (" ..." if len(unjudged) > SHOWN else "")
        said.append(f"{len(unjudged)} class(es) cannot be judged, for want of test images: {names}.")
    return said


def descriptions(results: dict[str, Any]) -> list[str]:
    """The metrics that are no accuracies, a line each."""
    lines = []
    for name in sorted(DESCRIPTIONS & results.keys()):
        numbers = {key: value for key, value in results[name].items() if isinstance(value, int | float)}
        numbers |= {key: value["average"] for key, value in results[name].items() if isinstance(value, dict)}
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    return lines


def groups_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of an eval.json that are split into groups."""
    from evensphere.report.record import METRICS as TITLES

    return {title: results[name] for name, title in TITLES.items() if name in results}


def group_table(title: str, rows: dict[str, dict[str, Any]], split: Split = "test") -> Any:
    """A table with a row per metric or run: many, medium, few, their spread, and the average."""
    from rich.table import Table

    columns = ("many", "medium", "few", "std", "average")
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, scores in rows.items():
        table.add_row(name, *(_spell(scores[column]) for column in columns))
    sizes = next(iter(rows.values()))["test_images"]
    table.add_row(f"{split} images", *(f"{sizes[group]:,}" for group in columns[:3]), "", f"{sum(sizes.values()):,}")
    return table


def _spell(value: float | str | None) -> str:
    return value if isinstance(value, str) else "-" if value is None else f"{value:.2f}"
