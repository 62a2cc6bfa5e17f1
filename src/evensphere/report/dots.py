"""A dot plot before any plotting library draws it: which arm has a dot in which row, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evensphere.report.arms import Arm, ClassScores, Spread
from evensphere.report.record import GROUPS

_LONGEST = 22  # letters of a class's name


class Dot(NamedTuple):
    """One arm's mean with its error bar, and the single seeds, where they are to be shown."""

    mean: Spread
    seeds: list[float]

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest value that is drawn."""
        drawn = [self.mean.mean, *self.mean.bar, *self.seeds]
        return min(drawn), max(drawn)


class Row(NamedTuple):
    """A label, and the dots of the arms (by label) that have one."""

    label: str
    dots: dict[str, Dot]


def group_rows(arms: Sequence[Arm], metric: str) -> list[Row]:
    """many, medium, few and average, with every seed."""

    def dots(key: str) -> dict[str, Dot]:
        found = {arm.label: (arm.spread(metric, key), list(arm.scores(metric, key).values())) for arm in arms}
        return {label: Dot(mean, seeds) for label, (mean, seeds) in found.items() if mean}

    return [Row(label, dots(key)) for key, label in GROUPS.items()]


def class_rows(classes: Sequence[ClassScores]) -> list[Row]:
    """Means only: a class has few test images, so its single seeds are noise."""
    return [
        Row(
            f"{_short(row.name)} ({row.images:,})",
            {label: Dot(mean, []) for label, mean in row.spreads.items() if mean},
        )
        for row in classes
    ]


def _short(name: str) -> str:
    """A name without its middle where it is too long for a phone; the table has it whole."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}…{name[-8:]}"


def placed(arms: Sequence[Arm], rows: Sequence[Row]) -> list[tuple[Arm, list[tuple[float, Dot]]]]:
    """Each arm's dots with their heights: row i lies around -i and is 1 high, the first arm on top in it."""
    offsets = [0.33 - 0.66 * (i + 0.5) / len(arms) for i in range(len(arms))]
    return [
        (arm, [(-i + offset, row.dots[arm.label]) for i, row in enumerate(rows) if arm.label in row.dots])
        for offset, arm in zip(offsets, arms, strict=True)
    ]


def range_with_room(rows: Sequence[Row]) -> list[float]:
    """From the lowest dot to the highest, with room on the right for a number even on a phone.

    At least five points wide, so that a small difference also looks small.
    """
    lows, highs = zip(*(dot.reach for row in rows for dot in row.dots.values()), strict=True)
    low, high = min(lows), max(highs)
    width = max(high - low, 5.0)
    return [low - 0.07 * width, high + 0.27 * width]


def percent_ticks(low: float, high: float) -> list[int]:
    """At most seven round numbers in the range, none of them above 100 %."""
    step = next(step for step in (1, 2, 5, 10, 20) if (high - low) / step < 7 or step == 20)
    return [tick for tick in range(0, 101, step) if low <= tick <= high]
