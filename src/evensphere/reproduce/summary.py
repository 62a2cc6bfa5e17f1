"""A table's page, from its run folders alone: pictures first, then for each metric the arms and their differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from evensphere.report.record import METRICS
from evensphere.report.wording import capital
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture
from evensphere.reproduce.pictures import (
    arms_picture,
    curves_picture,
    differences_picture,
    surrogates_picture,
)
from evensphere.reproduce.results import COLUMNS, Score, read_looks
from evensphere.reproduce.rows import PAIRED, Column, arm_rows, difference_rows, seeds_of
from evensphere.rundir import RunDir

T = TypeVar("T")

_ELSEWHERE = ("clusters", "finetune", "scratch")  # what tables of measures add to a run's scores


def table_page(
    table: str, command: str, scores: Sequence[Score], done: Sequence[Cell], folder: Path, pictures: Path
) -> list[Block]:
    """The page of a table's finished cells. scores: what `collect` finds in them. folder: of their runs.
    pictures: where PNGs go, as PICTURES-NAME.png."""
    return tables(table, command, scores, draw(table, scores, done, folder, pictures))


# --- pictures ---------------------------------------------------------------------------------------------------------


def draw(table: str, scores: Sequence[Score], done: Sequence[Cell], folder: Path, pictures: Path) -> list[Picture]:
    def named(name: str) -> Path:
        return pictures.with_name(f"{pictures.name}-{name}.png")

    curves = _by_arm(done, folder, _knn_curve)
    arms, contrasts, *_, apart = get_table(table)
    drawn = [
        differences_picture(named("differences"), scores, "probe", contrasts),
        arms_picture(named("arms"), scores, "probe", arms),
        curves_picture(named("curves"), curves, _stage_change(done, folder), apart),
    ]
    looked_at = [cell for cell in done if RunDir(folder / cell.folder).surrogates_file.exists()]
    looks = _by_arm(looked_at, folder, read_looks)
    if "gh" in looks:
        drawn.append(surrogates_picture(named("surrogates"), looks))
    return drawn


def _by_arm(cells: Sequence[Cell], folder: Path, read: Callable[[RunDir], T]) -> dict[str, dict[int, T]]:
    """What is read from each cell's run, by arm and seed."""
    found: dict[str, dict[int, T]] = {}
    for cell in cells:
        found.setdefault(cell.arm, {})[cell.recipe.seed] = read(RunDir(folder / cell.folder))
    return found


def _knn_curve(run: RunDir) -> list[tuple[float, float]]:
    """kNN on validation images over the epochs."""
    return [(event["epoch"] + 1, event["knn"]) for event in run.read_metrics() if event["event"] == "evaluation"]


def _stage_change(cells: Sequence[Cell], folder: Path) -> float | None:
    """The epoch that GH begins after, if there is a run with GH; one in stages has no such epoch."""
    whole = [cell for cell in cells if cell.recipe.stages is None]
    recipes = [RunDir(folder / cell.folder).read_recipe()["resolved"] for cell in whole]
    found = [one["warm_up_steps"] / one["steps_per_epoch"] for one in recipes if one["warm_up_steps"] is not None]
    return found[0] if found else None


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(table: str, command: str, scores: Sequence[Score], pictures: Sequence[Picture] = ()) -> list[Block]:
    arms, contrasts, split, *_ = get_table(table)
    titles = {arm: ARMS[arm].title for arm in arms}
    words = f"Accuracy in % on {split} images; std is that of the three group means (ddof 0)."
    blocks: list[Block] = [Heading(1, command), Paragraph(f"{seeds_of(scores)} {words} {PAIRED}"), *pictures]
    for metric, title in METRICS.items():
        if metric.startswith(_ELSEWHERE):
            continue
        mine = [score for score in scores if score.metric == metric]
        columns: dict[str, Column] = {column: (metric, column) for column in COLUMNS}
        if mine:
            minutes = _minutes(mine)
            with_time = columns | ({"minutes": (metric, "minutes")} if minutes else {})
            blocks += [Heading(2, capital(title)), arm_rows([*mine, *minutes], titles, with_time)]
        differences = difference_rows(mine, contrasts, titles, columns, unit="points")
        if differences.rows and metric != "knn_untrained":
            blocks.append(differences)
    return blocks


def _minutes(scores: Sequence[Score]) -> list[Score]:
    """How long each cell took to train, as if it were a column. Not of an arm that shares a first stage, which trained
    half of the run; and only of a GPU, which has a name: two CPUs with as many cores may be twice as fast as each
    other."""
    one_each = [
        score
        for score in scores
        if score.column == "average" and not score.device.startswith("CPU") and ARMS[score.arm].branch is None
    ]
    return [
        score._replace(column="minutes", value=score.seconds / 60) for score in one_each if score.seconds is not None
    ]
