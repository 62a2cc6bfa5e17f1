"""What a table's cells add up to: every number in one parquet file, and a page to read, in markdown and HTML.

Arms are compared seed by seed. A difference comes with its 95 % interval (Student's t on the paired differences) and
with the smallest true difference that this many seeds would find four times in five (two-sided 5 % level, 80 % power).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import optimize, stats

from evensphere.metrics.groups import group_accuracy
from evensphere.report.record import METRICS
from evensphere.report.wording import capital
from evensphere.reproduce.cells import ARMS, Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows, to_html, to_markdown
from evensphere.rundir import RunDir, Split, atomic_write

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
        tail = run if cell.arm != "balanced" else RunDir(folder / f"base-seed{cell.recipe.seed}")
        counts = tail.read_results(split).get("train_counts", [])
        recipe, results = run.read_recipe(), run.read_results(split)
        device = run.read_environment()["device"]
        for metric in (metric for metric in METRICS if metric in results and counts):
            found = group_accuracy(results[metric]["per_class"], counts, results["group_rule"])
            for column in COLUMNS:
                where = (recipe["name"], cell.arm, recipe["seed"], metric, column)
                scores.append(Score(*where, found[column], run.train_seconds(), device))
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


def write_results(folder: Path, table: str, command: str, scores: Sequence[Score], pictures: Sequence[Picture]) -> None:
    """TABLE.parquet, TABLE.md and TABLE.html in the scale's folder."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([score._asdict() for score in scores]), buffer)
    atomic_write(folder / f"{table}.parquet", buffer.getvalue())
    blocks = table_page(table, command, scores, pictures)
    atomic_write(folder / f"{table}.md", to_markdown(blocks))
    atomic_write(folder / f"{table}.html", to_html(blocks, folder))


def read_results(file: Path) -> list[Score]:
    """The scores in a TABLE.parquet."""
    return [Score(**row) for row in pq.read_table(file).to_pylist()]


# --- the page ---------------------------------------------------------------------------------------------------------


def table_page(table: str, command: str, scores: Sequence[Score], pictures: Sequence[Picture] = ()) -> list[Block]:
    """Pictures first, then for each metric the arms and their differences."""
    blocks: list[Block] = [Heading(1, command), Paragraph(_provenance(scores, get_table(table).split)), *pictures]
    for metric, title in METRICS.items():
        mine = [score for score in scores if score.metric == metric]
        if mine:
            blocks += [Heading(2, capital(title)), _arm_rows(mine, get_table(table).arms)]
        if mine and metric != "knn_untrained":
            blocks.append(_difference_rows(mine, get_table(table).contrasts))
    return blocks


def _provenance(scores: Sequence[Score], split: Split) -> str:
    seeds = len({score.seed for score in scores})
    recipes, devices = ({getattr(score, field) for score in scores} for field in ("recipe", "device"))
    claim = "" if seeds >= 3 else " Fewer than three seeds: no claim can rest on it."
    return (
        f"Recipe {', '.join(sorted(recipes))} on {', '.join(sorted(devices))}; {seeds} seed(s). Accuracy in % on "
        f"{split} images, mean ± standard deviation over seeds; std is that of the three group means (ddof 0). "
        "Differences are paired by seed, with 95 % intervals; below each, the smallest true difference that so many "
        f"seeds would find four times in five.{claim}"
    )


def _arm_rows(scores: Sequence[Score], arms: Sequence[str]) -> Rows:
    rows = []
    for arm in arms:
        cells = [_spread(list(by_seed(scores, arm, column).values())) for column in COLUMNS]
        seconds = {score.seed: score.seconds for score in scores if score.arm == arm and score.seconds is not None}
        if seconds:
            rows.append([ARMS[arm].title, *cells, str(len(seconds)), f"{mean(seconds.values()) / 60:.1f}"])
    return Rows(["arm", *COLUMNS, "seeds", "minutes"], rows)


def _difference_rows(scores: Sequence[Score], contrasts: Sequence[tuple[str, str]]) -> Rows:
    rows = []
    for pair in contrasts:
        found = [paired_difference(*(by_seed(scores, arm, column) for arm in pair)) for column in COLUMNS]
        if any(found):
            rows.append([contrast_title(pair), *map(_spell, found)])
            rows.append(["smallest detectable", *map(_spell_detectable, found)])
    return Rows(["difference, in points", *COLUMNS], rows)


def contrast_title(pair: tuple[str, str]) -> str:
    return f"{ARMS[pair[0]].title}, against {ARMS[pair[1]].title}"


def by_seed(scores: Sequence[Score], arm: str, column: str) -> dict[int, float]:
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


def _spell_detectable(difference: Difference | None) -> str:
    return "-" if difference is None or difference.detectable is None else f"{difference.detectable:.2f}"
