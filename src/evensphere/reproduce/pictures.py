"""The pictures of results: how arms learnt and differ, what the surrogate labels know, medians with their spread."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter, StrMethodFormatter

from evensphere.disk import atomic_write
from evensphere.metrics.groups import GROUPS
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.page import Picture
from evensphere.reproduce.results import Score, by_seed, paired_difference

# Okabe & Ito's colours; the three arms of every comparison have the report's
_COLORS = {"base": "#D55E00", "two-stage": "#009E73", "gh": "#0072B2", "balanced": "#8C8C8C"}
_SPARE_COLORS = ("#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#994F00", "#40B0A6")

_ROW = 0.42  # inches
_PANELS = 5  # side by side
_MOST_INSIDE = 6  # names that a legend has room for inside the axes

_OFFSET: dict[str, Any] = {"textcoords": "offset points"}

# of an arm, by seed
Curves = Mapping[str, Mapping[int, Sequence[tuple[float, float]]]]  # (epoch, value) pairs
LooksBack = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]  # what reproduce.surrogates.look_back returns


def contrast_title(pair: tuple[str, str]) -> str:
    return f"{ARMS[pair[0]].title}, against {ARMS[pair[1]].title}"


def arms_picture(file: Path, scores: Sequence[Score], metric: str, arms: Sequence[str]) -> Picture:
    """The arms' accuracies, one panel a column of the table: mean and range over seeds, single seeds faint."""
    mine = [score for score in scores if score.metric == metric]
    present = {score.arm for score in mine}
    arms = [arm for arm in arms if arm in present]  # of an unfinished table, those there are
    columns = (*GROUPS, "average")
    figure = Figure(figsize=(11, 1.2 + _ROW * len(arms)), layout="constrained")
    for panel, column in zip(figure.subplots(1, len(columns), sharey=True), columns, strict=True):
        for row, arm in enumerate(arms):
            values = list(by_seed(mine, arm, column).values())
            if not values:
                continue
            color, marker = _kind_look(arm)
            panel.plot([min(values), max(values)], [-row, -row], color=color, linewidth=1.5, solid_capstyle="butt")
            panel.plot(values, [-row] * len(values), marker, color=color, alpha=0.3, markeredgewidth=0)
            panel.plot(fmean(values), -row, marker, color=color)
        panel.set_title(column)
        _dress_dots(panel)
    _name_rows(figure, [ARMS[arm].title for arm in arms])
    figure.supxlabel("accuracy, % (mean and range over seeds; faint: single seeds)", fontsize=10)
    _save(figure, file)
    return Picture(
        file.name,
        "The arms by how common the classes were in training. Seeds move arms together: what tells two apart is "
        "their paired difference.",
    )


def differences_picture(
    file: Path,
    scores: Sequence[Score],
    metric: str,
    contrasts: Sequence[tuple[str, str]],
    of: str = "difference in accuracy, points",
) -> Picture:
    """Paired differences with their 95 % intervals and every seed, one panel a column of the table. of: the axis."""
    mine = [score for score in scores if score.metric == metric]
    seeds_of = {arm: {score.seed for score in mine if score.arm == arm} for pair in contrasts for arm in pair}
    contrasts = [(one, other) for one, other in contrasts if seeds_of[one] & seeds_of[other]]  # those there are by now
    columns = (*GROUPS, "average")
    figure = Figure(figsize=(11, 1.4 + _ROW * len(contrasts)), layout="constrained")
    for panel, column in zip(figure.subplots(1, len(columns), sharey=True, sharex=True), columns, strict=True):
        for row, pair in enumerate(contrasts):
            first, second = (by_seed(mine, arm, column) for arm in pair)
            difference = paired_difference(first, second)
            if difference is None:
                continue
            seeds = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
            color = _color(pair[0])
            panel.plot(seeds, [-row] * len(seeds), "o", color=color, alpha=0.3, markeredgewidth=0)
            panel.errorbar(difference.mean, -row, xerr=difference.margin, fmt="o", color=color, capsize=4)
        panel.axvline(0, color="#444444", linewidth=0.8)
        panel.set_title(column)
        _dress_dots(panel)
    _name_rows(figure, [contrast_title(pair) for pair in contrasts])
    figure.supxlabel(f"{of} (mean and 95 % interval; faint: single seeds)", fontsize=10)
    _save(figure, file)
    return Picture(file.name, "Differences between arms, paired by seed, by how common the classes were in training.")


def curves_picture(file: Path, curves: Curves, stage_change: float | None, apart: bool = False) -> Picture:
    """Validation kNN over the epochs: the mean of the seeds, their range shaded. apart: a panel for each family."""
    if apart:
        _draw_families(file, curves, stage_change)
    else:
        many = len(curves) > _MOST_INSIDE
        figure = Figure(figsize=(11 if many else 8, 5.6 if many else 4.2), layout="constrained")
        axes = figure.add_subplot()
        for arm, by_seed_ in curves.items():
            _draw_mean(axes, list(by_seed_.values()), _color(arm), ARMS[arm].title)
        _mark_stage_change(axes, stage_change)
        _dress(axes, "epoch", "kNN on validation images, %")
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1), "fontsize": 9}
        axes.legend(frameon=False, **(beside if many else {"loc": "lower right"}))
        _save(figure, file)
    return Picture(file.name, "How the arms learnt: kNN accuracy on validation images, mean and range over seeds.")


def _draw_families(file: Path, curves: Curves, stage_change: float | None) -> None:
    families: dict[str, list[str]] = {}
    for arm in curves:
        families.setdefault(ARMS[arm].family, []).append(arm)
    columns = min(_PANELS, len(families))
    rows = -(-len(families) // columns)
    figure = Figure(figsize=(2 + 2.6 * columns, 0.8 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    drawn: dict[str, Any] = {}
    for axes, (title, arms) in zip(grid, families.items(), strict=False):
        for arm in arms:
            kind = ARMS[arm].recipe_arm
            _draw_mean(axes, list(curves[arm].values()), _COLORS[kind], kind)
        _mark_stage_change(axes, stage_change, "")
        _dress(axes, "", "")
        axes.set_title(title, fontsize=10)
        handles, labels = axes.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    for axes in list(grid):  # the places that are left over
        axes.set_visible(False)
    figure.supxlabel("epoch (dashed: GH begins)", fontsize=10)
    figure.supylabel("kNN on validation images, %", fontsize=10)
    kinds = {kind: ARMS[kind].title for kind in ("base", "two-stage", "gh") if kind in drawn}
    figure.legend([drawn[kind] for kind in kinds], kinds.values(), loc="outside upper center", ncols=3, frameon=False)
    _save(figure, file)


def _mark_stage_change(axes: Any, epoch: float | None, words: str = "GH begins") -> None:
    if epoch is not None:
        axes.axvline(epoch, color="#444444", linewidth=0.8, linestyle="--")
        axes.annotate(words, (epoch, 1), xycoords=("data", "axes fraction"), xytext=(4, -12), **_OFFSET)


def surrogates_picture(file: Path, looks: LooksBack) -> Picture:
    """Four panels: information, population, ownership, gradients (see reproduce.surrogates)."""
    figure = Figure(figsize=(11, 7.6), layout="constrained")
    information, population, ownership, gradient = figure.subplots(2, 2).flat
    for arm, by_seed_ in looks.items():
        records = list(by_seed_.values())
        _draw_mean(information, [_track(r, "nmi") for r in records], _color(arm), ARMS[arm].title)
    chance = [_track(records, "nmi_chance") for records in looks["gh"].values()]
    _draw_mean(information, chance, "#444444", "by chance")
    _dress(information, "epoch", "NMI of surrogate labels and classes")
    information.set_ylim(bottom=0)
    information.legend(frameon=False)
    harmonized = looks["gh"]
    last = [records[-1] for records in harmonized.values()]
    _draw_sizes(population, last)
    _draw_homes(ownership, looks)
    _draw_mean(gradient, [_track(r, "gradient_ratio") for r in harmonized.values()], _color("gh"), "ratio of lengths")
    _draw_mean(gradient, [_track(r, "gradient_cosine") for r in harmonized.values()], "#E69F00", "cosine")
    _dress(gradient, "epoch", "GH's gradient against the method's")
    gradient.set_ylim(bottom=min(0, gradient.get_ylim()[0]))
    gradient.legend(frameon=False)
    _save(figure, file)
    return Picture(
        file.name,
        "What the surrogate labels know: their information about the classes; region sizes against class sizes at the "
        "end; how many images stand in a region that their own class owns; the two losses' gradients on the encoder.",
    )


def population_picture(file: Path, courses: Sequence[Sequence[Mapping[str, float]]], begins: float) -> Picture:
    """Three panels over the epochs: how diverse pi is, how far it moves, what the surrogate labels know.

    courses: of each seed, see reproduce.population.course_of_pi. begins: the epoch that GH begins after.
    """
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    diversity, movement, information = figure.subplots(1, 3)
    _draw_mean(diversity, [_track(course, "effective_regions") for course in courses], _color("gh"), "regions (pi)")
    classes = [_track(course, "effective_classes") for course in courses]
    _draw_mean(diversity, classes, "#444444", "classes")
    _dress(diversity, "epoch", "effective number")
    diversity.set_ylim(bottom=0)
    moves = [[(record["epoch"], 100 * record["moved"]) for record in course if "moved" in record] for course in courses]
    _draw_mean(movement, moves, _color("gh"), "pi")
    _dress(movement, "epoch", "moved since the last pi, % of the images")
    movement.set_ylim(bottom=0)
    movement.set_xlim(diversity.get_xlim())
    _draw_mean(information, [_track(course, "nmi") for course in courses], _color("gh"), "surrogate labels")
    _draw_mean(information, [_track(course, "nmi_chance") for course in courses], "#444444", "by chance")
    _dress(information, "epoch", "NMI with the classes")
    information.set_ylim(bottom=0)
    for axes in (diversity, movement, information):
        axes.axvline(begins, color="#444444", linewidth=0.8, linestyle="--")
    movement.annotate("GH begins", (begins, 1), xycoords=("data", "axes fraction"), xytext=(4, -12), **_OFFSET)
    diversity.legend(frameon=False, loc="lower right")
    information.legend(frameon=False, loc="center right")
    _save(figure, file)
    return Picture(
        file.name,
        "What pi learns: the effective number of its regions against that of the classes; the share of the images by "
        "which one pi differs from the next; what the surrogate labels know of the classes. Mean and range over seeds.",
    )


# by unit: (label, median, low, high)
Medians = Mapping[str, Sequence[tuple[str, float, float, float]]]

_WIDE = 30  # times the smallest; what differs by more is drawn on a logarithmic axis
_MOST_LABELLED = 1000  # times the smallest; beyond, 1 2 5 in every decade would run into each other


def medians_picture(file: Path, panels: Medians, caption: str) -> Picture:
    """Dots with bars, one panel a unit, first row on top."""
    heights = [len(rows) + 1.5 for rows in panels.values()]
    figure = Figure(figsize=(9, 0.32 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    for axes, (unit, rows) in zip(grid[:, 0], panels.items(), strict=True):
        labels, medians, lows, highs = zip(*rows, strict=True)
        places = [-row for row in range(len(rows))]
        bars = [
            [m - low for m, low in zip(medians, lows, strict=True)],
            [h - m for h, m in zip(highs, medians, strict=True)],
        ]
        axes.errorbar(medians, places, xerr=bars, fmt="o", color=_COLORS["gh"], capsize=3, markersize=5)
        if min(lows) > 0 and max(highs) > _WIDE * min(lows):
            axes.set_xscale("log")
            subs = (1, 2, 5) if max(highs) <= _MOST_LABELLED * min(lows) else (1,)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_yticks(places, labels)
        axes.set_ylim(0.6 - len(rows), 0.6)
        _dress(axes, unit, "")
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
    _save(figure, file)
    return Picture(file.name, caption)


def _draw_sizes(axes: Any, last: Sequence[Mapping[str, Any]]) -> None:
    images = sum(last[0]["class_sizes"])
    sizes = [fmean(column) * images for column in zip(*(record["prior"] for record in last), strict=True)]
    shown = [max(size, 0.5) for size in sizes]  # an empty region has no place on a logarithmic scale
    axes.plot(range(1, len(sizes) + 1), shown, color=_color("gh"), label="regions (pi)")
    classes = last[0]["class_sizes"]
    axes.plot(range(1, len(classes) + 1), classes, color="#444444", linestyle="--", label="classes")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    _dress(axes, "rank, largest first", "images")
    axes.legend(frameon=False)


def _draw_homes(axes: Any, looks: LooksBack) -> None:
    """Bars: share of each group's images that stand in a region their own class owns."""
    width = 0.8 / len(looks)
    for place, (arm, by_seed_) in enumerate(looks.items()):
        last = [records[-1]["at_home"] for records in by_seed_.values()]
        heights = [fmean(record.get(group, 0.0) for record in last) for group in GROUPS]
        left = [i - 0.4 + width * (place + 0.5) for i in range(len(GROUPS))]
        bars = axes.bar(left, heights, width * 0.9, color=_color(arm), label=ARMS[arm].title)
        axes.bar_label(bars, fmt="%.1f", fontsize=9)
    axes.set_xticks(range(len(GROUPS)), GROUPS)
    _dress(axes, "", "images in a region of their own class, %")
    axes.legend(frameon=False)


def _track(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(record["epoch"], record[key]) for record in records]


def _draw_mean(axes: Any, curves: Sequence[Sequence[tuple[float, float]]], color: str, label: str) -> None:
    """The mean over seeds at the epochs that all of them have, and their range."""
    points = [dict(curve) for curve in curves]
    epochs = sorted(set.intersection(*(set(curve) for curve in points)))
    values = [[curve[epoch] for curve in points] for epoch in epochs]
    axes.plot(epochs, [fmean(column) for column in values], color=color, marker="o", markersize=3, label=label)
    axes.fill_between(epochs, [min(c) for c in values], [max(c) for c in values], color=color, alpha=0.15, linewidth=0)


def _name_rows(figure: Figure, names: Sequence[str]) -> None:
    """Of panels that share them, the first on top."""
    figure.axes[0].set_yticks([-row for row in range(len(names))], names)
    figure.axes[0].set_ylim(0.4 - max(1, len(names)), 0.6)


def _dress_dots(panel: Any) -> None:
    """Rows without lines of their own."""
    panel.grid(axis="x", color="#e4e4e4")
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(left=False)


def _dress(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#ececec")
    axes.spines[["top", "right"]].set_visible(False)


def _color(arm: str) -> str:
    others = [name for name in ARMS if name not in _COLORS]
    return _COLORS.get(arm) or dict(zip(others, cycle(_SPARE_COLORS), strict=False))[arm]


def _kind_look(arm: str) -> tuple[str, str]:
    """Colour and marker of an arm where each row is one: by what it is of a fair comparison."""
    kind = "balanced" if arm == "balanced" else ARMS[arm].recipe_arm
    return _COLORS[kind], {"base": "s", "two-stage": "D", "gh": "o", "balanced": "s"}[kind]


def _save(figure: Figure, file: Path) -> None:
    png = io.BytesIO()
    with mpl.rc_context({"text.parse_math": False}):
        figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
    atomic_write(file, png.getvalue())
