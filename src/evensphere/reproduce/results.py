"""What a table's cells add up to: every number in one parquet file, and a page of markdown.

Arms are compared seed by seed. A difference comes with its 95 % interval (Student's t on the paired differences) and
with the smallest true difference that this many seeds would find four times in five (two-sided 5 % level, 80 % power).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import optimize, stats

from evensphere.report.record import METRICS
from evensphere.report.wording import capital
from evensphere.rundir import RunDir, atomic_write

COLUMNS = ("many", "medium", "few", "std", "average")
ARMS = {"base": "base", "two-stage": "two-stage learning rate, no GH", "gh": "GH"}
CONTRASTS = (("gh", "two-stage"), ("gh", "base"), ("two-stage", "base"))


class Score(NamedTuple):
    """One number of one cell; accuracies in percent. seconds: the cell took to train, a shared first stage left out."""

    recipe: str
    arm: str
    seed: int
    metric: str
    column: str
    value: float | None
    seconds: float | None
    device: str


class Difference(NamedTuple):
    """A paired difference over n seeds: mean, half the width of its 95 % interval, smallest detectable difference."""

    mean: float
    margin: float | None
    detectable: float | None
    seeds: int


def collect(runs: Iterable[Path]) -> list[Score]:
    """Every score of every evaluated run."""
    scores = []
    for path in runs:
        run = RunDir(path)
        recipe, results = run.read_recipe(), json.loads(run.evaluation_file.read_text())
        device = json.loads(run.environment_file.read_text())["device"]
        for metric, column in product([metric for metric in METRICS if metric in results], COLUMNS):
            where = (recipe["name"], recipe["arm"], recipe["seed"], metric, column)
            scores.append(Score(*where, results[metric][column], run.train_seconds(), device))
    return scores


def paired_difference(first: dict[int, float], second: dict[int, float]) -> Difference | None:
    """first - second over the seeds that both have; None if there are none, no interval for a single one."""
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if not differences:
        return None
    if len(differences) == 1:
        return Difference(differences[0], None, None, 1)
    freedom = len(differences) - 1
    error = stdev(differences) / len(differences) ** 0.5
    critical = float(stats.t.ppf(0.975, freedom))
    return Difference(mean(differences), critical * error, detectable_errors(freedom) * error, len(differences))


def detectable_errors(freedom: int) -> float:
    """How many standard errors a true difference must measure for a t test (5 % level) to find it in 80 % of tables.

    freedom: the seeds less one.
    """
    critical = stats.t.ppf(0.975, freedom)
    return float(optimize.brentq(lambda size: stats.nct.sf(critical, freedom, size) - 0.8, 0.0, 100.0))


def write_results(folder: Path, command: str, scores: Sequence[Score]) -> None:
    """results.parquet and results.md in the table's folder."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([score._asdict() for score in scores]), buffer)
    atomic_write(folder / "results.parquet", buffer.getvalue())
    atomic_write(folder / "results.md", render(command, scores))


# --- the page ---------------------------------------------------------------------------------------------------------


def render(command: str, scores: Sequence[Score]) -> str:
    """The table in markdown: arms, then their differences, for each metric."""
    lines = [f"# {command}", "", _provenance(scores), ""]
    for metric, title in METRICS.items():
        mine = [score for score in scores if score.metric == metric]
        if mine:
            differences = [] if metric == "knn_untrained" else [*_difference_rows(mine), ""]
            lines += [f"## {capital(title)}", "", *_arm_rows(mine), "", *differences]
    return "\n".join(lines)


def _provenance(scores: Sequence[Score]) -> str:
    seeds = len({score.seed for score in scores})
    recipes, devices = ({getattr(score, field) for score in scores} for field in ("recipe", "device"))
    claim = "" if seeds >= 3 else " Fewer than three seeds: no claim can rest on it."
    return (
        f"Recipe {', '.join(sorted(recipes))} on {', '.join(sorted(devices))}; {seeds} seed(s). Accuracy in % on test "
        f"images, mean ± standard deviation over seeds; std is that of the three group means (ddof 0).{claim}"
    )


def _arm_rows(scores: Sequence[Score]) -> list[str]:
    rows = [f"| arm | {' | '.join(COLUMNS)} | seeds | minutes |", "|---" * (len(COLUMNS) + 3) + "|"]
    for arm, title in ARMS.items():
        cells = [_spread(list(_by_seed(scores, arm, column).values())) for column in COLUMNS]
        seconds = {score.seed: score.seconds for score in scores if score.arm == arm and score.seconds is not None}
        if seconds:
            minutes = f"{mean(seconds.values()) / 60:.1f}"
            rows.append(f"| {title} | {' | '.join(cells)} | {len(seconds)} | {minutes} |")
    return rows


def _difference_rows(scores: Sequence[Score]) -> list[str]:
    rows = ["| difference, in points | many | medium | few | std | average |", "|---" * (len(COLUMNS) + 1) + "|"]
    for first, second in CONTRASTS:
        found = [paired_difference(*(_by_seed(scores, arm, column) for arm in (first, second))) for column in COLUMNS]
        if any(found):
            rows.append(f"| {ARMS[first]} against {ARMS[second]} | {' | '.join(map(_spell, found))} |")
            smallest = " | ".join(
                "-" if one is None or one.detectable is None else f"{one.detectable:.2f}" for one in found
            )
            rows.append(f"| smallest detectable | {smallest} |")
    return rows


def _by_seed(scores: Sequence[Score], arm: str, column: str) -> dict[int, float]:
    return {s.seed: s.value for s in scores if (s.arm, s.column) == (arm, column) and s.value is not None}


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _spell(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    if difference.margin is None:
        return f"{difference.mean:+.2f}"
    low, high = difference.mean - difference.margin, difference.mean + difference.margin
    return f"{difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"
