"""Training steps as they are, without the engine around them, for tests of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods.base import Method
from evensphere.ops.draw import seed_for
from evensphere.ops.schedule import Progress

PROGRESS = Progress(43, 4, 80)  # epoch 10: beyond what a method keeps still at first, such as prototypes


def take_steps(
    method: Method,
    harmonizer: Harmonizer | NoHarmonizer,
    views_of: Callable[[int], tuple[Tensor, ...]],
    steps: Iterable[int],
    momentum: float = 0.0,
) -> list[Tensor]:
    """The loss of each step, with the views of that step. The gradients of the last one stay with the parameters."""
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=momentum)
    losses = []
    for step in steps:
        torch.manual_seed(seed_for(0, "step", step))
        views, progress = views_of(step), PROGRESS._replace(step=step)
        index = torch.arange(len(views[0]))
        output = method(views, index, progress)
        loss = output.loss + harmonizer(output.embeddings, index, progress).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(index, output, progress)
        harmonizer.after_step(output.embeddings, index, progress)
        losses.append(loss.detach())
    return losses
