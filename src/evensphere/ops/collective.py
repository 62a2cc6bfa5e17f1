"""What processes tell each other. Alone, every function here gives its argument back."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def gather(rows: Shaped[Tensor, "local ..."]) -> Shaped[Tensor, "world ..."]:
    """Every process's rows, in rank order, with gradient.

    Backward sums over processes what each of them derived for a row, so a loss that is the mean over *local* rows,
    once its gradients are averaged by data parallelism, has the gradient of the mean over *all* rows.
    Every process must bring the same number of rows.
    """
    if world_size() == 1:
        return rows
    return _Gather.apply(rows)  # type: ignore[no-any-return]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].contiguous()
        dist.all_reduce(gradient)
        local = gradient.shape[0] // world_size()
        return gradient[rank() * local : (rank() + 1) * local]
