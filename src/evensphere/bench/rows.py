"""Rounds become rows: a median with its spread and, against the bare backbone, a ratio taken within each round."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from scipy import stats

from evensphere.disk import atomic_write


class Row(NamedTuple):
    """One line of the table.

    n: rounds. min, max: of them. low, high: a 95 % interval of the median (see `interval`).
    ratio: to the bare backbone, the median of the rounds' ratios, with its own interval; None where nothing was timed.
    """

    what: str
    n: int
    median: float
    min: float
    max: float
    low: float
    high: float
    unit: str
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


def summarise(what: str, values: Sequence[float], unit: str, bare: Sequence[float] | None = None) -> Row:
    """The row of a value for each round. bare: what the same rounds took for the bare backbone."""
    row = Row(what, len(values), median(values), min(values), max(values), *interval(values), unit)
    if bare is None:
        return row
    ratios = [value / base for value, base in zip(values, bare, strict=True)]
    low, high = interval(ratios)
    return row._replace(ratio=median(ratios), ratio_low=low, ratio_high=high)


def counted(what: str, value: float, unit: str) -> Row:
    """The row of something that is the same every time."""
    return summarise(what, [value], unit)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Between which two of the values the median of all possible rounds lies, with 95 % confidence whatever their
    distribution (order statistics, by the binomial); with fewer than 6 rounds all values are no more than that."""
    n = len(values)
    rank = max(1, int(stats.binom.ppf(0.025, n, 0.5)))
    ordered = sorted(values)
    return ordered[rank - 1], ordered[n - rank]


def write_rows(file: Path, rows: Iterable[Row], context: Mapping[str, Any]) -> None:
    """JSON lines, one for each row, with what was measured on in every one."""
    atomic_write(file, "".join(json.dumps({**row._asdict(), **context}) + "\n" for row in rows))
