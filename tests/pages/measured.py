"""Numbers that pages say, worked out from what is committed in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from statistics import mean
from typing import Any, NamedTuple

from tests.pages.reading import ROOT

from evensphere.reproduce.cells import get_table
from evensphere.reproduce.publish import finished
from evensphere.reproduce.results import Difference, Score, by_seed, collect, paired_difference, read_looks
from evensphere.rundir import RunDir

RESULTS = ROOT / "benchmarks" / "results"
SMALL = RESULTS / "small"


class Interval(NamedTuple):
    """A paired difference and its 95 % interval, in points; as a page says it: -0.48 (-1.07 to +0.11)."""

    mean: float
    low: float
    high: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"

    @property
    def points(self) -> str:
        return f"{self.mean:+.2f} points ({self.low:+.2f} to {self.high:+.2f})"


@cache
def _scores(table: str) -> list[Score]:
    return collect(finished(table, "small", SMALL), SMALL, get_table(table).split)


def contrast(table: str, first: str, second: str, column: str = "average", metric: str = "probe") -> Interval:
    """How far an arm is ahead of another one."""
    scores = [score for score in _scores(table) if score.metric == metric]
    return _interval(paired_difference(by_seed(scores, first, column), by_seed(scores, second, column)))


def _interval(found: Difference | None) -> Interval:
    assert found is not None, "no seed in common"
    assert found.margin is not None, "a single seed"
    return Interval(found.mean, found.mean - found.margin, found.mean + found.margin, found.seeds)


def recipe_of(cell: str) -> dict[str, Any]:
    """recipe.json of a kept run."""
    found: dict[str, Any] = json.loads((SMALL / cell / "recipe.json").read_text())
    return found


def own_images(first: str, second: str, metric: str) -> Interval:
    """How far one setting of benchmarks/own_images.py is ahead of another. first, second: such as "batch 16: no GH"."""
    measured = lines("choices/own-images.jsonl")
    found = [{one["seed"]: one[metric] for one in measured if one["what"] == what} for what in (first, second)]
    return _interval(paired_difference(*found))


def lengths(metric: str) -> dict[int, float]:
    """The mean over seeds, by epochs."""
    found = [one for one in lines("choices/own-images.jsonl") if one["what"] == "length"]
    every = sorted({one["epochs"] for one in found})
    return {epochs: mean(one[metric] for one in found if one["epochs"] == epochs) for epochs in every}


def looks(arm: str, key: str, epoch: int) -> list[float]:
    """What a look back found at an epoch, of every seed. key: such as 'nmi' or 'uniformity.average'."""
    found = []
    for file in sorted(SMALL.glob(f"{arm}-seed*/surrogates.json")):
        (record,) = [one for one in read_looks(RunDir(file.parent)) if one["epoch"] == epoch]
        value: Any = record
        for name in key.split("."):
            value = value[name]
        found.append(float(value))
    return found


def span(values: list[float], spelled: str = "{:.2f}") -> str:
    """The least and the largest: 0.13 to 0.15; or the one number that both round to."""
    least, largest = (spelled.format(pick(values)) for pick in (min, max))
    return least if least == largest else f"{least} to {largest}"


def steps_with_gh(pick: Callable[[list[dict[str, Any]]], dict[str, Any]], key: str) -> list[float]:
    """A number of one of the logged steps that GH acted on, of every seed of GH."""
    runs = [
        [event for line in file.read_text().splitlines() if (event := json.loads(line))["event"] == "step"]
        for file in sorted(SMALL.glob("gh-seed*/metrics.jsonl"))
    ]
    return [float(pick([event for event in steps if event["gh_weight"] > 0])[key]) for steps in runs]


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / file).read_text().splitlines()]


def line(file: str, **wanted: Any) -> dict[str, Any]:
    """The one line of a *.jsonl with these values."""
    (found,) = [one for one in lines(file) if wanted.items() <= one.items()]
    return found


def once(what: str) -> str:
    """A number that was measured once, of which the log tells; as it was written down."""
    return str(line("choices/once.jsonl", what=what)["value"])


@cache
def published(row: str, section: str) -> tuple[str, ...]:
    """The cells of a row of docs/results.md, which another test makes again from the results. section: its heading."""
    page = (ROOT / "docs" / "results.md").read_text()
    inside = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    (found,) = [text for text in inside.splitlines() if text.startswith(f"| {row} |")]
    return tuple(cell.strip() for cell in found.strip("| ").split("|")[1:])
