"""A table's page, from its run folders alone: pictures first, then for each metric the arms and their differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import TypeVar

from evensphere.report.record import METRICS
from evensphere.report.wording import capital
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows
from evensphere.reproduce.pictures import (
    arms_picture,
    contrast_title,
    curves_picture,
    differences_picture,
    surrogates_picture,
)
from evensphere.reproduce.results import COLUMNS, Score, by_seed, paired_difference, read_looks
from evensphere.reproduce.rows import ranges, spell, spell_detectable, spread
from evensphere.rundir import RunDir, Split

T = TypeVar("T")


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
    blocks: list[Block] = [Heading(1, command), Paragraph(_provenance(scores, get_table(table).split)), *pictures]
    for metric, title in METRICS.items():
        mine = [score for score in scores if score.metric == metric]
        if mine:
            blocks += [Heading(2, capital(title)), _arm_rows(mine, get_table(table).arms)]
        differences = _difference_rows(mine, get_table(table).contrasts)
        if differences.rows and metric != "knn_untrained":
            blocks.append(differences)
    return blocks


def _provenance(scores: Sequence[Score], split: Split) -> str:
    recipes, devices = ({getattr(score, field) for score in scores} for field in ("recipe", "device"))
    seeds = {arm: {score.seed for score in scores if score.arm == arm} for arm in {score.arm for score in scores}}
    every = set().union(*seeds.values())
    partly = "" if all(own == every for own in seeds.values()) else "; not every arm has all of them"
    claim = "" if len(every) >= 3 else " Fewer than three seeds: no claim can rest on it."
    return (
        f"Recipe {', '.join(sorted(recipes))} on {', '.join(sorted(devices))}; {len(every)} seed(s), {ranges(every)}"
        f"{partly}. Accuracy in % on "
        f"{split} images, mean ± standard deviation over seeds; std is that of the three group means (ddof 0). "
        "Differences are paired by seed, over the pairs that both arms have, with 95 % intervals; below each, the "
        f"smallest true difference that so many pairs would find four times in five.{claim}"
    )


def _arm_rows(scores: Sequence[Score], arms: Sequence[str]) -> Rows:
    rows = []
    for arm in arms:
        cells = [spread(list(by_seed(scores, arm, column).values())) for column in COLUMNS]
        seconds = {score.seed: score.seconds for score in scores if score.arm == arm and score.seconds is not None}
        seeds = {score.seed for score in scores if score.arm == arm}
        if seeds:
            minutes = f"{mean(seconds.values()) / 60:.1f}" if seconds else "-"
            rows.append([ARMS[arm].title, *cells, f"{len(seeds)} ({ranges(seeds)})", minutes])
    return Rows(["arm", *COLUMNS, "seeds", "minutes"], rows)


def _difference_rows(scores: Sequence[Score], contrasts: Sequence[tuple[str, str]]) -> Rows:
    rows = []
    for pair in contrasts:
        found = [paired_difference(*(by_seed(scores, arm, column) for arm in pair)) for column in COLUMNS]
        if any(found):
            pairs = max(difference.seeds for difference in found if difference is not None)
            rows.append([contrast_title(pair), *map(spell, found), str(pairs)])
            rows.append(["smallest detectable", *map(spell_detectable, found), ""])
    return Rows(["difference, in points", *COLUMNS, "pairs"], rows)
