"""Charts of findings, drawn."""

from __future__ import annotations

import io
from typing import Any

from evensphere.diagnosis.finding import Chart

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe & Ito


def draw(chart: Chart) -> bytes:
    """A PNG of a chart."""
    import matplotlib as mpl  # here, since most of what asks for findings wants no picture
    from matplotlib.figure import Figure

    png = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False, "font.size": 11}):
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        (_bars if chart.kind == "bars" else _lines)(axes, chart)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        axes.grid(axis="y", color="#e4e4e4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if len(chart.series) > 1:
            axes.legend(frameon=False)
        figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    return png.getvalue()


def _bars(axes: Any, chart: Chart) -> None:
    width = 0.8 / len(chart.series)
    for number, (name, values) in enumerate(chart.series.items()):
        places = [i - 0.4 + width * (number + 0.5) for i in range(len(values))]
        heights = [value or 0.0 for value in values]
        axes.bar(places, heights, width * 0.92, color=_COLORS[number % len(_COLORS)], label=name)
        if name in chart.intervals:
            spans = zip(heights, chart.intervals[name], strict=True)
            below, above = zip(*((max(0.0, h - low), max(0.0, high - h)) for h, (low, high) in spans), strict=True)
            axes.errorbar(places, heights, yerr=[below, above], fmt="none", ecolor="#444444", elinewidth=0.8)
    if len(chart.x) <= 12:
        axes.set_xticks(range(len(chart.x)), [str(x) for x in chart.x])
    else:
        axes.set_xticks([i for i in range(len(chart.x)) if i == 0 or (i + 1) % 10 == 0])
        axes.set_xticklabels([str(chart.x[int(i)]) for i in axes.get_xticks()])


def _lines(axes: Any, chart: Chart) -> None:
    for number, (name, values) in enumerate(chart.series.items()):
        points = [(x, y) for x, y in zip(chart.x, values, strict=True) if y is not None]
        marker = "o" if len(points) <= 20 else None
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_COLORS[number % len(_COLORS)],
            marker=marker,
            markersize=4,
            label=name,
        )
