"""Optimisers, and learning rates by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from evensphere.errors import InputError
from evensphere.ops.schedule import Duration, Progress, plain_learning_rate, two_stage_learning_rate

LearningRate = Callable[[int], float]  # of the epoch, from 0

OPTIMIZERS = {"sgd": "evensphere.engine.optim:sgd"}
SCHEDULES = {"plain": "evensphere.engine.optim:plain", "two-stage": "evensphere.engine.optim:two_stage"}


def sgd(parameters: Iterable[nn.Parameter], momentum: float = 0.9, weight_decay: float = 5e-4) -> torch.optim.Optimizer:
    """SGD with momentum, weight decay on every parameter, as in the paper's protocol. The schedule sets the rate."""
    if not 0 <= momentum < 1 or weight_decay < 0:
        raise InputError(
            f"momentum {momentum}, weight_decay {weight_decay} were given; they must be in [0, 1) and >= 0."
        )
    return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, weight_decay=weight_decay)


def plain(
    epochs: int, learning_rate: float = 0.5, final: float = 1e-6, warm_up: Duration | str | float = "10 epochs"
) -> LearningRate:
    """Linear warm-up, one cosine: the paper's schedule without harmonization."""
    rise = _epochs(warm_up, epochs, learning_rate)
    if rise > epochs:
        raise InputError(f"A warm-up of {rise} epochs was given for a run of {epochs}; make it shorter.")
    return lambda epoch: plain_learning_rate(epoch, epochs, learning_rate, final, rise)


def two_stage(
    epochs: int,
    learning_rate: float = 0.5,
    middle: float = 0.3,
    final: float = 1e-6,
    warm_up: Duration | str | float = "10 epochs",
    stage_change: Duration | str | float = 0.5,
) -> LearningRate:
    """Linear warm-up, a cosine to `middle` at the stage change, a cosine to `final`: the schedule of GH's runs."""
    rise, change = _epochs(warm_up, epochs, learning_rate), _epochs(stage_change, epochs, learning_rate)
    if not rise <= change <= epochs:
        raise InputError(f"A stage change at epoch {change} was given; it must lie between {rise} and {epochs}.")
    return lambda epoch: two_stage_learning_rate(epoch, epochs, change, learning_rate, middle, final, rise)


def _epochs(duration: Duration | str | float, epochs: int, learning_rate: float) -> int:
    if not learning_rate > 0:
        raise InputError(f"learning_rate = {learning_rate} was given; it must be above 0.")
    duration = Duration.parse(duration)
    if duration.unit == "steps":
        raise InputError(f"{duration} was given; the learning rate changes by epoch, so give epochs or a fraction.")
    return duration.steps(Progress(0, 1, epochs)) if duration.unit == "fraction" else round(duration.amount)
