"""The groups of classes as a PNG for a README: the page's first figure, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evensphere.errors import InputError
from evensphere.report.arms import Arm, evaluated, group_arms, main_metric
from evensphere.report.dots import Row, group_rows, percent_ticks, placed, range_with_room
from evensphere.report.page import write_file
from evensphere.report.record import METRICS, read_runs
from evensphere.report.sentences import bars_of_one_seed
from evensphere.report.wording import count


def groups_picture(runs: Sequence[Path] | Path, out_png: Path) -> Path:
    """Draw the groups of several runs (mean, spread over seeds, single seeds faint) as a PNG and return its path.

    Raises InputError if a folder is not a run, or if none of them has been evaluated on labelled images.
    """
    import matplotlib as mpl  # here, because the page must not wait for it
    from matplotlib.figure import Figure

    arms = group_arms(read_runs(runs))
    metric = main_metric(arms)
    if metric is None:
        raise InputError("None of these runs has been evaluated on labelled images; run `evensphere evaluate` first.")
    arms = evaluated(arms, metric)
    rows = group_rows(arms, metric)
    png = io.BytesIO()
    # names are text, not formulas: a `$` in one must not start TeX
    with mpl.rc_context({"text.parse_math": False, "font.size": 14, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 1.8 + len(rows) * (0.25 + 0.28 * len(arms))))
        figure.set_layout_engine("constrained", w_pad=0.15, h_pad=0.12)
        _draw_dots(figure.add_subplot(), arms, rows)
        _draw_words(figure, arms, metric)
        figure.savefig(png, format="png", dpi=150)
    write_file(out_png, png.getvalue())
    return out_png


def _draw_dots(axes: Any, arms: Sequence[Arm], rows: Sequence[Row]) -> None:
    for i in range(0, len(rows), 2):
        axes.axhspan(-i - 0.5, -i + 0.5, color="#f4f4f4", zorder=0)
    for arm, dots in placed(arms, rows):
        look = {"color": arm.look.color, "marker": arm.look.marker, "linestyle": "none"}
        for y, dot in dots:
            axes.plot(dot.seeds, [y] * len(dot.seeds), alpha=0.3, markersize=7, markeredgewidth=0, **look)
            low, high = dot.mean.bar
            bar = [[dot.mean.mean - low], [high - dot.mean.mean]]
            axes.errorbar(dot.mean.mean, y, xerr=bar, markersize=10, capsize=4, elinewidth=2, **look)
            place = {"xytext": (10, 0), "textcoords": "offset points", "va": "center"}
            text = f"{dot.mean.mean:.1f}"
            axes.annotate(text, (dot.reach[1], y), color=arm.look.color, fontweight="bold", **place)
        axes.plot([], [], label=arm.label, markersize=10, **look)
    axes.set_yticks([-i for i in range(len(rows))], [row.label for row in rows], fontsize=17)
    axes.set_ylim(-len(rows) + 0.5, 0.5)
    reach = range_with_room(rows)
    axes.set_xticks(percent_ticks(*reach))
    axes.set_xlim(*reach)
    axes.grid(axis="x", color="#dddddd", linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_words(figure: Any, arms: Sequence[Arm], metric: str) -> None:
    most = max(len(arm.scores(metric, "average")) for arm in arms)
    note = f"mean ± standard deviation of {count(most, 'seed')}" if most > 1 else bars_of_one_seed(arms, metric)
    figure.suptitle("Did the rare classes survive?", x=0.012, ha="left", fontsize=21, fontweight="bold")
    axes = figure.axes[0]
    axes.set_xlabel(f"{METRICS[metric]}, % correct ({note})", labelpad=8)
    legend = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0), "frameon": False}
    axes.legend(ncols=min(len(arms), 3), handletextpad=0.1, columnspacing=1.4, **legend)
