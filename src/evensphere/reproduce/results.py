"""What a table's cells add up to: every number, and differences between arms.

Arms are compared seed by seed. A difference comes with its 95 % interval (Student's t on the paired differences) and
with the smallest true difference that this many seeds would find four times in five (two-sided 5 % level, 80 % power).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import optimize, stats

from evensphere.disk import atomic_write
from evensphere.metrics.groups import group_accuracy
from evensphere.report.record import METRICS
from evensphere.reproduce.cells import Cell
from evensphere.rundir import RunDir, Split

COLUMNS = ("many", "medium", "few", "std", "average")


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


def collect(cells: Iterable[Cell], folder: Path, split: Split) -> list[Score]:
    """Every score of the given cells, all of them scored on that split.

    Classes are grouped by how common they are in the seed's *long-tailed* set, for the balanced arm too, so that a
    group is the same classes in every arm; that arm's scores therefore wait for the base arm's.
    """
    scores = []
    for cell in cells:
        run = RunDir(folder / cell.folder)
        counts = tail_counts(cell, folder, split)
        recipe, results = run.read_recipe(), run.read_results(split)
        device = run.read_environment()["device"]
        for metric in (metric for metric in METRICS if metric in results and counts):
            found = group_accuracy(results[metric]["per_class"], counts, results["group_rule"])
            for column in COLUMNS:
                where = (recipe["name"], cell.arm, recipe["seed"], metric, column)
                scores.append(Score(*where, found[column], run.train_seconds(), device))
    return scores


def tail_counts(cell: Cell, folder: Path, split: Split) -> list[int]:
    """Images of each class in the long-tailed set of a cell's seed; empty where the run that knows them is not there.

    The balanced arm's own set has no tail: the base arm's is asked for.
    """
    tail = cell.folder if cell.arm != "balanced" else f"base-seed{cell.recipe.seed}"
    counts: list[int] = RunDir(folder / tail).read_results(split).get("train_counts", [])
    return counts


def read_looks(run: RunDir) -> list[dict[str, Any]]:
    """What `surrogates.look_back` found at each kept checkpoint of a run that was looked back at."""
    checkpoints: list[dict[str, Any]] = json.loads(run.surrogates_file.read_text())["checkpoints"]
    return checkpoints


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


def by_seed(scores: Sequence[Score], arm: str, column: str) -> dict[int, float]:
    return {s.seed: s.value for s in scores if (s.arm, s.column) == (arm, column) and s.value is not None}


def write_scores(file: Path, scores: Sequence[Score]) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([score._asdict() for score in scores]), buffer)
    atomic_write(file, buffer.getvalue())
