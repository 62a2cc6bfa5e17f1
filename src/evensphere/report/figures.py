"""From arms to plotly figures: dots with error bars, curves over epochs, region sizes.

Plotly reads tags and links in its texts, so every name is escaped before it gets there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from statistics import fmean

import plotly.graph_objects as go

from evensphere.report.arms import Arm, ClassScores, evaluated, runs_of
from evensphere.report.dots import Dot, Row, class_rows, group_rows, percent_ticks, placed, range_with_room
from evensphere.report.record import Json, RunRecord, number

Points = list[tuple[float, float]]

MOST_CLASSES = 12  # in the figure
MOST_POINTS = 150  # of a curve: more cannot be seen and make the page large

_FAINT_LINE = {"color": "#888", "width": 1, "dash": "dot"}


def _layout(height: int) -> Json:
    """Transparent and colourless where the page's style sheet sets the colours of light, dark and print."""
    axis = {"gridcolor": "rgba(128,128,128,.25)", "zeroline": False, "automargin": True, "fixedrange": True}
    return {
        "template": "none", "height": height, "showlegend": False, "dragmode": False,
        "margin": {"l": 8, "r": 12, "t": 24, "b": 8}, "font": {"family": "system-ui, sans-serif", "size": 14},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": axis, "yaxis": axis,
    }  # fmt: skip


# --- rows of dots -----------------------------------------------------------------------------------------------------


def dot_figure(arms: Sequence[Arm], rows: Sequence[Row], numbers: bool) -> go.Figure:
    """Rows of dots, arms below each other: mean, error bar over seeds, single seeds faint behind.

    numbers: whether each mean is also written beside its dot.
    """
    figure = go.Figure()
    for arm, dots in placed(arms, rows):
        if dots:
            _add_dots(figure, arm, dots, numbers)
    reach = range_with_room(rows)
    ticks = {"tickvals": [-i for i in range(len(rows))], "ticktext": [escape(row.label) + " " for row in rows]}
    figure.update_layout(
        _layout(height=60 + len(rows) * (22 + (24 if numbers else 12) * len(arms))),
        yaxis={**ticks, "range": [-len(rows) + 0.5, 0.5], "showgrid": False},
        xaxis={"ticksuffix": " %", "tickvals": percent_ticks(*reach), "range": reach},
        shapes=[_band(-i) for i in range(0, len(rows), 2)],
    )
    return figure


def _add_dots(figure: go.Figure, arm: Arm, dots: Sequence[tuple[float, Dot]], numbers: bool) -> None:
    ys, means = [y for y, _ in dots], [dot.mean for _, dot in dots]
    seeds = [(value, y) for y, dot in dots for value in dot.seeds if len(dot.seeds) > 1]
    marker = {"color": arm.look.color, "symbol": arm.look.symbol}
    faint = marker | {"size": 8, "opacity": 0.3}
    figure.add_scatter(x=[x for x, _ in seeds], y=[y for _, y in seeds], mode="markers", marker=faint, hoverinfo="skip")
    figure.add_scatter(
        x=[mean.mean for mean in means],
        y=ys,
        mode="markers",
        marker=marker | {"size": 12},
        error_x={
            "array": [mean.bar[1] - mean.mean for mean in means],
            "arrayminus": [mean.mean - mean.bar[0] for mean in means],
            "symmetric": False,
            "thickness": 2,
            "width": 5,
        },
        text=[mean.text for mean in means],
        hovertemplate=f"{escape(arm.label)}: %{{text}} %<extra></extra>",
    )
    if numbers:
        ends, texts = [dot.reach[1] for _, dot in dots], [f"  {mean.mean:.1f}" for mean in means]
        figure.add_scatter(x=ends, y=ys, text=texts, mode="text", textposition="middle right", hoverinfo="skip")


def _band(y: float) -> Json:
    return {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": y - 0.5, "y1": y + 0.5,
        "line": {"width": 0}, "fillcolor": "rgba(128,128,128,.07)", "layer": "below",
    }  # fmt: skip


# --- curves over epochs -----------------------------------------------------------------------------------------------


def curve(run: RunRecord, name: str) -> Points:
    """What a run logged for the figure of that name; empty for nothing."""
    events, key = {
        "loss": (run.steps, "ssl" if any("ssl" in event for event in run.steps) else "loss"),
        "gh": ([event for event in run.steps if number(event.get("gh_weight"))], "gh"),
        "rate": (run.steps, "lr"),
        "knn": (run.evaluations, "knn"),
        "effective": (run.populations, "effective"),
    }[name]
    found = [(run.epoch_of(event), number(event.get(key))) for event in events]
    points = [(epoch, value) for epoch, value in found if epoch is not None and value is not None]
    return points if name == "effective" else _thinned(points)


def _thinned(points: Points) -> Points:
    """Means of at most MOST_POINTS bins."""
    size = max(math.ceil(len(points) / MOST_POINTS), 1)
    bins = [points[i : i + size] for i in range(0, len(points), size)]
    return [(fmean(x for x, _ in some), fmean(y for _, y in some)) for some in bins]


def curve_figure(arms: Sequence[Arm], name: str) -> go.Figure:
    """One line a run, with the ends of GH's warm-up and ramp marked. name: see `curve`."""
    figure, unit = go.Figure(), " %" if name == "knn" else ""
    for arm, run in runs_of(arms):
        points = curve(run, name)
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers" if len(points) <= 30 else "lines",
            line={"color": arm.look.color, "width": 1.8},
            marker={"symbol": arm.look.symbol, "size": 5},
            opacity=0.85,
            cliponaxis=False,
            hovertemplate=f"{escape(arm.label)}, seed {run.recipe['seed']}: %{{y:.3~g}}{unit}<extra></extra>",
        )
    figure.update_layout(
        _layout(height=270),
        xaxis={"title": {"text": "epoch"}, "range": [0, max(run.recipe["epochs"] for _, run in runs_of(arms))]},
        yaxis={"ticksuffix": unit, "nticks": 6},
        hovermode="x",
    )
    for epoch, text, side in phase_marks(arms):
        figure.add_vline(x=epoch, line=_FAINT_LINE)
        note = {"text": text, "xanchor": side, "yanchor": "bottom", "showarrow": False}
        figure.add_annotation(x=epoch, y=1, yref="paper", **note)
    return figure


def phase_marks(arms: Sequence[Arm]) -> list[tuple[float, str, str]]:
    """(epoch, text, side of the line that the text stands on) for the ends of warm-up and ramp of every schedule."""
    marks = set()
    for _, run in runs_of(arms):
        keys = ("warm_up_steps", "ramp_steps", "steps_per_epoch")
        warm_up, ramp, per_epoch = (number(run.resolved.get(key)) for key in keys)
        if warm_up is not None and per_epoch:
            marks.add((warm_up / per_epoch, "warm-up ends ", "right"))
            marks.add(((warm_up + (ramp or 0)) / per_epoch, " ramp ends", "left"))
    return sorted(marks)


# --- region sizes -----------------------------------------------------------------------------------------------------


def region_figure(arms: Sequence[Arm]) -> go.Figure:
    """Last region sizes sorted from large to small (mean over seeds), where they began, and what even would be."""
    figure = go.Figure()
    for arm in arms:
        runs = [run for run in arm.runs if run.populations]
        if not runs:
            continue
        first, last = (_mean_sorted([run.populations[i]["prior"] for run in runs]) for i in (0, -1))
        label, size = escape(arm.label), "%{y:.2f} %<extra></extra>"
        line = {"color": arm.look.color, "width": 2, "dash": "dot", "shape": "hvh"}
        figure.add_scatter(x=_ranks(first), y=first, mode="lines", line=line, hovertemplate=f"{label}, first: {size}")
        bars = {"color": arm.look.color, "opacity": 0.75}
        figure.add_bar(x=_ranks(last), y=last, marker=bars, hovertemplate=f"{label}, last: {size}")
        figure.add_hline(y=100 / len(last), line=_FAINT_LINE, annotation_text="if all were equal")
    figure.update_layout(
        _layout(height=270),
        xaxis={"title": {"text": "regions, largest first"}},
        # a margin of its own: plotly's, made for its ticks, goes back and forth here
        yaxis={"ticksuffix": " %", "rangemode": "tozero", "nticks": 6, "automargin": False},
        margin={"l": 60, "r": 12, "t": 24, "b": 8},
        barmode="overlay",
        bargap=0.15,
    )
    return figure


def _ranks(sizes: Sequence[float]) -> list[int]:
    return list(range(1, len(sizes) + 1))


def _mean_sorted(priors: Sequence[list[float]]) -> list[float]:
    """Percent by rank, mean over the runs whose number of regions is the first run's."""
    alike = [sorted(prior, reverse=True) for prior in priors if len(prior) == len(priors[0])]
    return [100 * fmean(rank) for rank in zip(*alike, strict=True)]


# --- region sizes over time -------------------------------------------------------------------------------------------

# Even is the colour of nothing to see; what is below even is blue, what is above it orange, on paper and on black
_BELOW_TO_ABOVE = [[0, "#0072B2"], [0.5, "#b9bcc0"], [1, "#D55E00"]]
_MOST_TIMES = 8  # even shares: from an eighth to eight times the colours change
_MOST_COLUMNS = 60


def learnt_runs(arms: Sequence[Arm]) -> list[tuple[Arm, RunRecord]]:
    """Of each arm the first run whose regions were sized more than once: their numbers mean other places in another."""
    found = [(arm, next((run for run in arm.runs if len(run.populations) > 1), None)) for arm in arms]
    return [(arm, run) for arm, run in found if run is not None]


def learnt_figure(run: RunRecord) -> go.Figure:
    """What pi learnt: each region's share over the epochs, as how many times the even share; a row is a region, the one
    that is largest in the end on top."""
    whole = [event for event in run.populations if len(event["prior"]) == len(run.populations[-1]["prior"])]
    picked = [whole[round(i * (len(whole) - 1) / (_MOST_COLUMNS - 1))] for i in range(_MOST_COLUMNS)]
    events = whole if len(whole) <= _MOST_COLUMNS else picked
    last = events[-1]["prior"]
    rows = sorted(range(len(last)), key=lambda region: last[region])
    shares = [[round(100 * event["prior"][region], 4) for event in events] for region in rows]
    epochs = [run.epoch_of(event) for event in events]
    known = all(epoch is not None for epoch in epochs)
    figure = go.Figure()
    figure.add_heatmap(
        x=epochs if known else list(range(len(events))),
        y=list(range(len(rows))),
        z=[[_times_even(share / 100 * len(last)) for share in row] for row in shares],
        customdata=shares,
        text=[[f"region {region + 1}"] * len(events) for region in rows],
        hovertemplate="%{text}, epoch %{x:.0f}: %{customdata:.2f} %<extra></extra>",
        zmin=-math.log2(_MOST_TIMES),
        zmax=math.log2(_MOST_TIMES),
        colorscale=_BELOW_TO_ABOVE,
        colorbar={"tickvals": [-3, -1, 0, 1, 3], "ticktext": ["⅛", "½", "even", "twice", "8 times"], "thickness": 12},
    )
    figure.update_layout(
        _layout(height=300),
        xaxis={"title": {"text": "epoch" if known else "recomputation"}},
        yaxis={"title": {"text": "regions, largest on top"}, "showticklabels": False},
    )
    return figure


def _times_even(times: float) -> float:
    """As a power of two, within what the colours show."""
    return round(math.log2(min(max(times, 1 / _MOST_TIMES), _MOST_TIMES)), 2)


# --- all of the page's figures ----------------------------------------------------------------------------------------


def all_figures(arms: Sequence[Arm], metric: str | None, classes: Sequence[ClassScores]) -> dict[str, go.Figure]:
    """The figures that there is something to draw for, by the name that the template knows them by."""
    found = {}
    if metric:
        found["groups"] = dot_figure(evaluated(arms, metric), group_rows(arms, metric), numbers=True)
    if metric and classes:
        rarest = class_rows(classes[:MOST_CLASSES])
        found["classes"] = dot_figure(evaluated(arms, metric), rarest, numbers=False)
    for name in ("loss", "gh", "rate", "knn"):
        if any(curve(run, name) for _, run in runs_of(arms)):
            found[name] = curve_figure(arms, name)
    if any(run.populations for _, run in runs_of(arms)):
        found |= {"sizes": region_figure(arms), "effective": curve_figure(arms, "effective")}
    found |= {f"learnt-{i}": learnt_figure(run) for i, (_, run) in enumerate(learnt_runs(arms))}
    return found
