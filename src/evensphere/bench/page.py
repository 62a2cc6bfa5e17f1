"""The table and the sentences that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from evensphere.bench import names
from evensphere.bench.rows import Row
from evensphere.report.wording import three_figures

_STEADY = 1.5  # times the median: more is no noise of an idle machine


def print_page(console: Console, rows: Sequence[Row], context: Mapping[str, Any]) -> None:
    console.print(_table(rows, context))
    for sentence in sentences(rows, context):
        console.print(sentence, soft_wrap=True)


def sentences(rows: Sequence[Row], context: Mapping[str, Any]) -> list[str]:
    """What the table says, in plain words."""
    found = {row.what: row for row in rows}
    gh, parts, trained, views, beside = (
        _spread(found[name])
        for name in (
            names.GH_SHARE,
            names.GH_PARTS_SHARE,
            names.GH_TRAINED_SHARE,
            names.VIEWS_SHARE,
            names.BESIDE_SHARE,
        )
    )
    pixels = "made-up pixels" if context["made_up"] else "the images given"
    return [
        f"GH costs {gh} of a step, and {parts} if its parts are added up. Sinkhorn takes "
        f"{found[names.ITERATIONS].median:.0f} iterations on this untrained network; with 30, about what a trained one "
        f"takes, the parts are {trained}.",
        f"The views are {views} of a step, everything beside the backbone and its projector {beside} (median of "
        f"{found[names.BARE].n} round(s) and its 95 % interval; on {pixels}).",
        _operations(found),
        f"Precision {context['precision']}: {context['precision_why']}.",
        *_unrest(found[names.BARE]),
    ]


def _unrest(bare: Row) -> list[str]:
    """A warning where one and the same work took very different times."""
    if bare.max <= _STEADY * bare.median:
        return []
    return [
        f"The machine had other work to do: the bare backbone took between {three_figures(bare.min)} and "
        f"{three_figures(bare.max)} ms; measure again when it is idle."
    ]


def _operations(found: Mapping[str, Row]) -> str:
    without, exact, once, twice, iteration, iterations = (
        found[name].median
        for name in (
            names.OPERATIONS_WITHOUT,
            names.OPERATIONS_WITH,
            names.OPERATIONS_GH,
            names.OPERATIONS_GH_TWICE,
            names.OPERATIONS_ITERATION,
            names.ITERATIONS,
        )
    )
    sizes = "no more of them" if once == twice else f"{twice:,.0f} where {once:,.0f} were"
    return (
        f"GH adds {exact - without:,.0f} framework operations to the {without:,.0f} of a step, "
        f"{three_figures(iteration)} for each Sinkhorn iteration (a step takes about {iterations:.0f}); "
        f"twice the images and the batch take {sizes}."
    )


def _table(rows: Sequence[Row], context: Mapping[str, Any]) -> Table:
    title = (
        f"{context['recipe']}: {context['network']}, {context['method']}, batch {context['batch']}, "
        f"{context['anchors']} anchors, {context['images']:,} images; {context['device']}, {context['threads']} "
        f"thread(s), {context['precision']}"
    )
    table = Table(title=title, title_justify="left")
    for column in ("", "median", "min", "max", "", "of bare"):
        table.add_column(column, justify="left" if not column else "right")
    unit = rows[0].unit
    for row in rows:
        if row.unit != unit:
            table.add_section()
        unit = row.unit
        once = row.n == 1
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        table.add_row(
            row.what,
            three_figures(row.median),
            *("" if once else three_figures(x) for x in (row.min, row.max)),
            unit,
            ratio,
        )
    return table


def _spread(row: Row) -> str:
    return f"{row.median:.1f} % [{row.low:.1f}, {row.high:.1f}]"
