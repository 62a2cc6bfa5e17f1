"""`evensphere compare A B`: whether two runs, or two arms over several seeds, differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evensphere.cli.console import plain_console, say
from evensphere.cli.options import Trust
from evensphere.rundir import Split

if TYPE_CHECKING:
    from evensphere.compare.difference import Comparison

NAME = "compare"


def run(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="A B...", help="Run folders of two arms, told apart by their recipes; A minus B."),
    ] = None,
    a: Annotated[list[Path] | None, typer.Option("--a", help="Runs of the first arm, one for each seed.")] = None,
    b: Annotated[list[Path] | None, typer.Option("--b", help="Runs of the second arm, likewise.")] = None,
    metric: Annotated[str | None, typer.Option(help="probe, knn ... [default: the first that all runs have].")] = None,
    split: Annotated[Split, typer.Option(help="test or validation images.")] = "test",
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Images of your own with a few labels a class (class folders, a csv table, a list ...) to compare the "
            "encoders on, instead of what `evaluate` predicted."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    trust: Trust = False,
) -> None:
    """Compare two runs, or two arms over several seeds, on the same images: differences, intervals, one sentence."""
    from evensphere.compare.difference import compare

    if labels:
        from evensphere.compare.labels import compare_on_labels

        found = compare_on_labels(labels, runs or (), a or (), b or (), metric, trust)
    else:
        found = compare(runs or (), a or (), b or (), metric, split)
    if as_json:
        say(json.dumps(found.to_json(), indent=2))
        return
    console = plain_console(width=110)
    console.print(_table(found))
    for field, (mine, theirs) in found.sides.differing.items():
        console.print(f"  {field}: {_shown(mine)} against {_shown(theirs)}", soft_wrap=True)
    for caution in found.cautions:
        console.print(caution, soft_wrap=True)
    console.print(found.sentence, soft_wrap=True)


def _table(found: Comparison) -> Any:
    from rich.table import Table

    from evensphere.compare.difference import title_of

    first, second = found.sides.names
    title = f"{title_of(found.metric)} on {found.images:,} {found.split} images, {len(found.sides.pairs)} seed(s), in %"
    table = Table(title=title, title_justify="left")
    for column in ("", first, second, "difference", "95 % interval", "p", "for other classes"):
        table.add_column(column, justify="left" if not column else "right")
    for name, one in found.groups.items():
        others = one.other_classes
        table.add_row(
            name,
            f"{one.first:.1f}",
            f"{one.second:.1f}",
            f"{one.change.estimate:+.1f}",
            f"{one.change.low:+.1f} to {one.change.high:+.1f}",
            f"{one.p:.2g}",
            "-" if others is None else f"{others.low:+.1f} to {others.high:+.1f}",
        )
    drawn = "other seeds and images" if len(found.sides.pairs) > 1 else "other images"
    table.caption = f"Interval: {drawn}. p: sign flips over images, for these encoders."
    table.caption_justify = "left"
    return table


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
