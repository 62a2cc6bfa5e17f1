"""Optimisers, and learning rates by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from evensphere.errors import InputError
from evensphere.ops.schedule import Duration, Progress, plain_learning_rate, two_stage_learning_rate

LearningRate = Callable[[int], float]  # of the epoch, from 0

OPTIMIZERS = {
    "sgd": "evensphere.engine.optim:sgd",
    "lars": "evensphere.engine.optim:lars",
    "adamw": "evensphere.engine.optim:adamw",
    "asam": "evensphere.engine.sam:asam",
    "rwsam": "evensphere.engine.sam:rwsam",
}
SCHEDULES = {"plain": "evensphere.engine.optim:plain", "two-stage": "evensphere.engine.optim:two_stage"}


def sgd(parameters: Iterable[nn.Parameter], momentum: float = 0.9, weight_decay: float = 5e-4) -> torch.optim.Optimizer:
    """SGD with momentum, weight decay on every parameter, as in the paper's protocol. The schedule sets the rate."""
    check_decays(weight_decay, momentum=momentum)
    return torch.optim.SGD(parameters, lr=0.0, momentum=momentum, weight_decay=weight_decay)


def lars(
    parameters: Iterable[nn.Parameter],
    momentum: float = 0.9,
    weight_decay: float = 1e-6,
    trust_coefficient: float = 0.001,
) -> torch.optim.Optimizer:
    """LARS (You et al., 2017), SGD for large batches: timm's, as SimCLR and BYOL use it.

        v <- momentum v + trust_coefficient |w| / (|g| + weight_decay |w|) (g + weight_decay w),   w <- w - rate v

    for every weight tensor w with gradient g; the factor is 1 where |w| or |g| is 0. Biases and norms (tensors of one
    dimension) get plain SGD without weight decay. The paper has the rate inside v, which differs where it changes.

    weight_decay: >= 0 (SimCLR: 1e-6, BYOL: 1.5e-6). trust_coefficient: > 0. Rates are those of SGD or higher: SimCLR
    has 0.6 for a batch of 512.
    """
    from timm.optim.lars import Lars  # a second of start-up that SGD does without

    check_decays(weight_decay, momentum=momentum)
    if not trust_coefficient > 0:
        raise InputError(f"trust_coefficient = {trust_coefficient} was given; it must be above 0 (the paper: 0.001).")
    groups = _by_dimension(parameters, weight_decay)
    groups[0]["always_adapt"] = True  # without weight decay too
    optimizer: torch.optim.Optimizer = Lars(groups, lr=0.0, momentum=momentum, trust_coeff=trust_coefficient)
    return optimizer


def adamw(
    parameters: Iterable[nn.Parameter], betas: Sequence[float] = (0.9, 0.999), weight_decay: float = 0.05
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, ICLR 2019), torch's; no weight decay on biases and norms. It is what ViTs want.

    weight_decay: >= 0, multiplied by the rate. Rates are far below SGD's: DINO has 1e-3 for a batch of 512.
    """
    if len(betas) != 2:
        raise InputError(f"betas = {betas} was given; give two numbers in [0, 1).")
    check_decays(weight_decay, **{"the first beta": betas[0], "the second beta": betas[1]})
    groups = _by_dimension(parameters, weight_decay)
    # one pass takes a fifth of the time on a CPU; SGD has little to win by it, and its fused form fails where a
    # parameter gets its first gradient later than others (SwAV's prototypes)
    return torch.optim.AdamW(groups, lr=0.0, betas=(betas[0], betas[1]), fused=True)


def check_decays(weight_decay: float, **decays: float) -> None:
    """Refuse a negative weight decay, and a momentum or its like outside of [0, 1)."""
    if not weight_decay >= 0:
        raise InputError(f"weight_decay = {weight_decay} was given; it must be at least 0.")
    for name, value in decays.items():
        if not 0 <= value < 1:
            raise InputError(f"{name} = {value} was given; it must be in [0, 1).")


def _by_dimension(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: weights, and biases and norms, which are the tensors of one dimension, without weight decay."""
    parameters = list(parameters)
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


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
