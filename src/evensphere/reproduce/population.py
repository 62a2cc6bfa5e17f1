"""The table `population`: what pi, the share of the data in each anchor's region, learns over time.

RUN/metrics.jsonl has pi each time it was recomputed, region by region, so that successive ones can be held against each
other; RUN/surrogates.json has at every kept checkpoint its effective number of regions and what the surrogate labels
know of the classes. Until the warm-up's end pi does not act: what is shown there is what it would be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from evensphere.reproduce.cells import Cell
from evensphere.reproduce.page import Block, Heading, Paragraph, Rows
from evensphere.reproduce.pictures import population_picture
from evensphere.reproduce.results import Score, read_looks
from evensphere.reproduce.rows import seeds_of, spread
from evensphere.rundir import RunDir

_COLUMNS = {
    "effective regions": ("effective_regions", 1),
    "entropy, nats": ("entropy", 3),
    "empty regions": ("empty_regions", 1),
    "moved since the last pi": ("moved", 4),
    "effective classes": ("effective_classes", 1),
    "NMI": ("nmi", 3),
    "NMI by chance": ("nmi_chance", 3),
}


def total_variation(first: Sequence[float], second: Sequence[float]) -> float:
    """Half the sum of the absolute differences: the share of the data, in [0, 1], that would have to move."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True)) / 2


def course_of_pi(run: RunDir) -> list[dict[str, float]]:
    """One record for each kept checkpoint of a run of the arm gh that was looked back at.

    Each has "epoch" (epochs trained), "effective_regions" and "effective_classes" (exp of the entropy), "entropy" (of
    pi, in nats), "empty_regions", "nmi", "nmi_chance"; and "moved", the total variation between pi and the one before
    it, where pi was recomputed at that checkpoint and not for the first time.
    """
    moved = _moved(run)
    return [
        {
            "epoch": record["epoch"],
            "effective_regions": record["effective_regions"],
            "effective_classes": record["effective_classes"],
            "entropy": math.log(record["effective_regions"]),
            "empty_regions": sum(share == 0 for share in record["prior"]),
            "nmi": record["nmi"],
            "nmi_chance": record["nmi_chance"],
            **({"moved": moved[record["step"]]} if record["step"] in moved else {}),
        }
        for record in read_looks(run)
    ]


def _moved(run: RunDir) -> dict[int, float]:
    """How far each pi is from the one before, by the steps taken until then."""
    events = [event for event in run.read_metrics() if event["event"] == "population"]
    return {new["step"] + 1: total_variation(old["prior"], new["prior"]) for old, new in pairwise(events)}


def population_scores(cells: Sequence[Cell], folder: Path) -> list[Score]:
    """Every number of every kept checkpoint; the column is "epoch N"."""
    scores = []
    for cell in cells:
        run = RunDir(folder / cell.folder)
        recipe, device = run.read_recipe(), run.read_environment()["device"]
        for record in course_of_pi(run):
            for metric in (metric for metric in record if metric != "epoch"):
                where = (recipe["name"], cell.arm, recipe["seed"], metric, f"epoch {record['epoch']:g}")
                scores.append(Score(*where, record[metric], None, device))
    return scores


def population_page(
    command: str, scores: Sequence[Score], cells: Sequence[Cell], folder: Path, pictures: Path
) -> list[Block]:
    """pictures: where PNGs go, as PICTURES-NAME.png."""
    courses = [course_of_pi(RunDir(folder / cell.folder)) for cell in cells]
    resolved = RunDir(folder / cells[0].folder).read_recipe()["resolved"]
    begins = resolved["warm_up_steps"] / resolved["steps_per_epoch"]
    return [
        Heading(1, command),
        Paragraph(
            f"{seeds_of(scores)} Runs of the arm gh at every kept checkpoint, mean ± standard deviation over seeds. "
            "Effective number: exp of the entropy, how many equal regions or classes would be as diverse. Moved: the "
            "total variation between pi and the one before it, the share of the images that would have to change their "
            "region; pi is recomputed at some checkpoints only. NMI: normalised mutual information of surrogate labels "
            "and classes of the training images, and what labels dealt out at random have. "
            f"GH begins after epoch {begins:g}; before that pi does not act, and what it would be is shown."
        ),
        population_picture(pictures.with_name(f"{pictures.name}-pi.png"), courses, begins),
        _rows(courses),
    ]


def _rows(courses: Sequence[Sequence[dict[str, float]]]) -> Rows:
    """A row for each epoch at which a run has a kept checkpoint."""
    by_epoch: dict[float, list[dict[str, float]]] = {}
    for course in courses:
        for record in course:
            by_epoch.setdefault(record["epoch"], []).append(record)
    rows = [
        [
            f"{epoch:g}",
            *(
                spread([record[name] for record in records if name in record], digits)
                for name, digits in _COLUMNS.values()
            ),
            str(len(records)),
        ]
        for epoch, records in sorted(by_epoch.items())
    ]
    return Rows(["epoch", *_COLUMNS, "seeds"], rows)
