"""Everything that changes over time is a pure function of Progress.

Epochs are counted from 0 in the code and from 1 in the paper's formulas; the functions below say which they use.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, NamedTuple

from evensphere.errors import InputError
from evensphere.values import spelled


class Progress(NamedTuple):
    """Where a run is.

    step: optimiser steps taken so far, from 0.
    steps_per_epoch: 1 where there are no epochs (a foreign loop that counts steps).
    total_steps: of the whole run; None when nobody knows.
    """

    step: int
    steps_per_epoch: int = 1
    total_steps: int | None = None

    @property
    def epoch(self) -> int:
        """The epoch the step belongs to, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def ends_epoch(self) -> bool:
        """Whether this step is the last of its epoch."""
        return (self.step + 1) % self.steps_per_epoch == 0


@dataclass(frozen=True)
class Duration:
    """A length of time with its unit: '10 epochs', '200 steps', or a fraction of the run such as 0.5."""

    amount: float
    unit: Literal["epochs", "steps", "fraction"]

    @classmethod
    def parse(cls, given: Duration | str | float) -> Duration:
        """Read '10 epochs' | '1 epoch' | '200 steps' | 0.5 (fraction, 0 to 1) | 200 (an int is steps).

        Raises InputError for anything else.
        """
        if isinstance(given, Duration):
            return given
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            raise _not_a_duration(given)
        if isinstance(given, str):
            match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(epochs?|steps?|)\s*", given)
            if not match:
                raise _not_a_duration(given)
            unit, amount = match[2].rstrip("s"), _number(match[1])
            if amount is None or amount > _LONGEST:
                raise _not_a_duration(given)
            if unit:
                return cls(amount, "epochs" if unit == "epoch" else "steps")
            given = amount if re.search(r"[.e]", match[1]) else int(match[1])
        if isinstance(given, int) and 0 <= given <= _LONGEST:
            return cls(given, "steps")
        if isinstance(given, float) and 0 <= given <= 1:
            return cls(given, "fraction")
        raise _not_a_duration(given)

    def steps(self, progress: Progress) -> int:
        """The duration in steps. Raises InputError for a fraction of a run whose length nobody knows."""
        if self.unit == "steps":
            return round(self.amount)
        if self.unit == "epochs":
            return round(self.amount * progress.steps_per_epoch)
        if progress.total_steps is None:
            raise InputError(
                f"The duration {self} is a share of a run of unknown length; "
                "give it in steps or epochs, or pass total_steps."
            )
        # a share of a run counted in epochs ends with an epoch, unless the run is one
        steps = self.amount * progress.total_steps
        whole_epochs = progress.steps_per_epoch if progress.total_steps > progress.steps_per_epoch else 1
        return round(steps / whole_epochs) * whole_epochs

    def epochs(self, progress: Progress) -> int:
        """The duration in whole epochs."""
        return round(self.amount) if self.unit == "epochs" else round(self.steps(progress) / progress.steps_per_epoch)

    def __str__(self) -> str:
        return f"{self.amount:g}" if self.unit == "fraction" else f"{self.amount:g} {self.unit}"


_LONGEST = 10**15  # epochs or steps: beyond any run, and an exact float


def _number(text: str) -> float | None:
    """None for dots without digits."""
    try:
        return float(text)
    except ValueError:
        return None


def _not_a_duration(given: object) -> InputError:
    return InputError(
        f"{spelled(given)} is not a duration; write '10 epochs', '200 steps' or a fraction from 0.0 to 1.0."
    )


# --- learning rates: the paper's, by epoch counted from 1 -------------------------------------------------------------


def cosine(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def plain_learning_rate(epoch: int, epochs: int, peak: float = 0.5, final: float = 1e-6, warm_up: int = 10) -> float:
    """Linear warm-up to `peak`, then one cosine to `final` (PAPER: the baselines' schedule).

    epoch: from 0. epochs: of the whole run. warm_up: in epochs.
    """
    done = epoch + 1
    if done <= warm_up:
        return peak * done / warm_up
    return cosine(peak, final, (done - warm_up) / (epochs - warm_up))


def two_stage_learning_rate(
    epoch: int,
    epochs: int,
    stage_change: int,
    peak: float = 0.5,
    middle: float = 0.3,
    final: float = 1e-6,
    warm_up: int = 10,
) -> float:
    """Linear warm-up to `peak`, a cosine to `middle` at the stage change, a cosine from there to `final` (GH's runs).

    epoch: from 0. stage_change: epochs before the harmonizer acts.
    """
    done = epoch + 1
    if done <= warm_up:
        return peak * done / warm_up
    if done <= stage_change:
        return cosine(peak, middle, (done - warm_up) / (stage_change - warm_up))
    return cosine(middle, final, (done - stage_change) / (epochs - stage_change))


# --- temperatures -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Temperature:
    """A temperature over time: from `high` at the start down to `low` half a period later and back, along a cosine.

    This is TS (Kukleva et al., ICLR 2023): tau = low + (high - low)/2 (1 + cos(2 pi e / period)), e the epoch from 0.
    high, low: > 0; the same number twice is a constant temperature. period: in steps the temperature changes at every
    step, otherwise at every epoch.

    >>> temperature = Temperature.parse("1.0 to 0.1 every 400 epochs")
    >>> [round(temperature(Progress(10 * epoch, 10)), 2) for epoch in (0, 100, 200, 400)]
    [1.0, 0.55, 0.1, 1.0]
    """

    high: float
    low: float
    period: Duration = Duration(1, "steps")

    def __post_init__(self) -> None:
        if not (self.high > 0 and self.low > 0):
            raise InputError(f"A temperature from {self.high} to {self.low} was given; it must stay above 0.")
        if not self.period.amount > 0:
            raise InputError(f"A temperature with a period of {self.period} was given; it must be above 0.")

    @classmethod
    def parse(cls, given: Temperature | str | float) -> Temperature:
        """Read 0.2 (constant) or '1.0 to 0.1 every 400 epochs'. Raises InputError for anything else."""
        if isinstance(given, Temperature):
            return given
        if isinstance(given, str):
            match = re.fullmatch(r"\s*([0-9.]+) to ([0-9.]+) every (.+)", given)
            high, low = (_number(match[1]), _number(match[2])) if match else (None, None)
            if match is None or high is None or low is None:
                raise InputError(
                    f"{spelled(given)} is not a temperature; write a number above 0, or '1.0 to 0.1 every 400 epochs'."
                )
            return cls(high, low, Duration.parse(match[3]))
        if not 0 < given < math.inf:
            raise InputError(f"temperature = {spelled(given)} was given; it must be above 0.")
        return cls(given, given)

    def __call__(self, progress: Progress) -> float:
        """The temperature in force. Raises InputError for a period that is a share of a run of unknown length."""
        if self.high == self.low:
            return self.high
        now = progress.step if self.period.unit == "steps" else progress.epoch * progress.steps_per_epoch
        return cosine(self.high, self.low, 2 * now / max(1, self.period.steps(progress)))


# --- the harmonizer's weight ------------------------------------------------------------------------------------------


def ramp_weight(progress: Progress, warm_up: Duration, ramp: Duration) -> float:
    """The share of the harmonizer's weight in force: 0 in the warm-up, then 1/n, 2/n, ... 1.

    The ramp climbs once per step when it is given in steps, else once per epoch (the paper: n = 10 epochs on CIFAR, 30
    on the large sets; the first harmonized epoch has 1/n, not 0).
    """
    start = warm_up.steps(progress)
    if progress.step < start:
        return 0.0
    if ramp.unit == "steps":
        done, length = progress.step - start + 1, round(ramp.amount)
    else:
        done, length = progress.epoch - start // progress.steps_per_epoch + 1, ramp.epochs(progress)
    return min(1.0, done / length) if length else 1.0
