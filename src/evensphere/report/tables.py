"""From arms to tables: every number of the page, also those that its pictures show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from evensphere.report.arms import Arm, ClassScores, Spread, evaluated, runs_of, settings_of, spread
from evensphere.report.record import GROUPS, METRICS, Json, RunRecord, number
from evensphere.report.wording import capital

MOST_CLASSES = 1000  # keeps the page of a 10,000-class set small
MOST_SKIPPED = 50
MOST_SETTINGS = 200

Cell = str | Spread | None


class Table(NamedTuple):
    """A table of the page; the first cell of a row is its heading."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def group_table(arms: Sequence[Arm], metric: str) -> Table:
    """One row an arm: mean and standard deviation over seeds."""
    keys = [*GROUPS, "std", "std_sample"]
    rows = [
        [arm.label, *(arm.spread(metric, key) for key in keys), str(len(arm.scores(metric, "average")))]
        for arm in evaluated(arms, metric)
    ]
    head = ["arm", *GROUPS.values(), "std", "std (n-1)", "seeds"]
    unit = "%" if metric == "retrieval" else "% correct"  # a precision is no share of right answers
    return Table(capital(f"{METRICS[metric]}, {unit}"), head, rows)


def seed_table(arms: Sequence[Arm], metric: str) -> Table:
    """One row a run: the faint dots of the picture."""
    rows = [
        [arm.label, str(run.recipe["seed"]), *(_of_run(run, metric, key) for key in [*GROUPS, "std"])]
        for arm, run in runs_of(arms)
        if run.score(metric, "average") is not None
    ]
    return Table(capital(f"{METRICS[metric]}, each seed"), ["arm", "seed", *GROUPS.values(), "std"], rows)


def _of_run(run: RunRecord, metric: str, key: str) -> Spread | None:
    found = spread([run.score(metric, key)])
    return None if found is None else found._replace(interval=run.interval(metric, key))


def class_table(arms: Sequence[Arm], classes: Sequence[ClassScores]) -> Table:
    """One row a class, one column an arm."""
    shown = [arm.label for arm in arms if any(row.spreads[arm.label] for row in classes)]
    rows = [[row.name, f"{row.images:,}", *(row.spreads[label] for label in shown)] for row in classes[:MOST_CLASSES]]
    which = f"The {MOST_CLASSES:,} rarest classes" if len(classes) > MOST_CLASSES else "All classes, rarest first"
    return Table(f"{which}, % correct", ["class", "training images", *shown], rows)


def curve_table(arms: Sequence[Arm]) -> Table:
    """What the curves end at."""
    forms = {"epoch": ".0f", "loss": ".3f", "lr": ".2g"}
    rows = [
        [
            arm.label,
            str(run.recipe["seed"]),
            *(_last(run.steps, key, form) for key, form in forms.items()),
            _last(run.evaluations, "knn", ".1f"),
        ]
        for arm, run in runs_of(arms)
    ]
    return Table("Where the curves end", ["arm", "seed", "epoch", "loss", "learning rate", "kNN, %"], rows)


def _last(events: Sequence[Json], key: str, form: str) -> str | None:
    values = [value for event in events if (value := number(event.get(key))) is not None]
    return format(values[-1], form) if values else None


def region_table(arms: Sequence[Arm]) -> Table:
    """How uneven the region sizes of each run are."""
    rows = []
    for arm, run in runs_of(arms):
        if run.populations:
            prior, effective = run.populations[-1]["prior"], run.populations[-1]["effective"]
            regions = [str(len(prior)), f"{effective:.1f}"]
            sizes = [f"{100 * max(prior):.2f}", f"{100 * min(prior):.3f}", str(sum(share == 0 for share in prior))]
            moved = f"{100 * _moved(run.populations[0]['prior'], prior):.1f}"
            rows.append([arm.label, str(run.recipe["seed"]), *regions, *sizes, moved])
    head = ["arm", "seed", "regions", "effective regions", "largest, %", "smallest, %", "empty", "moved since first, %"]
    return Table("Region sizes at the last recomputation", head, rows)


def _moved(first: Sequence[float], last: Sequence[float]) -> float:
    """The share of the images that stands elsewhere than at first, at least: total variation."""
    return sum(max(0.0, now - then) for then, now in zip(first, last, strict=True)) if len(first) == len(last) else 1.0


def recipe_table(arms: Sequence[Arm]) -> Table:
    """What sets the recipes apart: one row a setting that differs, one column an arm."""
    settings = [settings_of(arm.runs[0]) for arm in arms]
    names = sorted({name for one in settings for name in one})
    rows = [
        [name, *(_spelled(one.get(name)) for one in settings)]
        for name in names
        if len({json.dumps(one.get(name), sort_keys=True) for one in settings}) > 1
    ]
    return Table("Settings that differ", ["setting", *(arm.label for arm in arms)], rows[:MOST_SETTINGS])


def _spelled(value: object) -> str | None:
    text = value if isinstance(value, str) else json.dumps(value)
    return None if value is None else text if len(text) <= 60 else f"{text[:59]}…"


def run_table(records: Sequence[RunRecord]) -> Table:
    """Every folder, also those that could not be used."""
    rows = [
        [
            str(record.folder),
            *(str(record.recipe.get(key, "unknown")) for key in ("name", "arm", "seed")),
            "finished" if record.finished else "not finished",
            f"{len(record.skipped):,}",
        ]
        for record in records
    ]
    return Table("The runs on this page", ["folder", "recipe", "arm", "seed", "state", "skipped images"], rows)


def skipped_table(records: Sequence[RunRecord]) -> Table:
    """The images that could not be read, each once."""
    rows = list(dict.fromkeys(row for record in records for row in record.skipped))
    some = f"The first {MOST_SKIPPED} of {len(rows):,} skipped images"
    return Table(some if len(rows) > MOST_SKIPPED else "Skipped images", ["path", "reason"], rows[:MOST_SKIPPED])
