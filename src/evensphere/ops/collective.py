"""What processes tell each other. Alone, every function here gives its argument back.

A batch is divided into shares: the first process has its first rows, the second the next ones, and so on, so that what
is gathered in the order of the processes is in the order of the batch. Shares may be of different sizes; then all must
know them (`shares`). The convention of every backward pass here is that of data parallelism: the gradients of the
processes are averaged afterwards, so each must be `world_size` times its part of the gradient of the one loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor

_shares: tuple[int, ...] | None = None  # rows of every process; None: as many as here
_alone = False


def world_size() -> int:
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    return dist.get_rank() if _together() else 0


def _together() -> bool:
    return not _alone and dist.is_available() and dist.is_initialized()


@contextmanager
def alone() -> Iterator[None]:
    """What runs inside has no others, whatever it does: for work that one process does by itself."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


@contextmanager
def shares(rows: int) -> Iterator[int]:
    """Every process says how many rows of a batch it has, so that inside all can gather shares of different sizes;
    how many there are in all. The functions below then take batches of these sizes only."""
    global _shares
    before, _shares = _shares, _roll_call(rows)
    try:
        yield sum(_shares)
    finally:
        _shares = before


def _roll_call(rows: int) -> tuple[int, ...]:
    if world_size() == 1:
        return (rows,)
    counts = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([rows]), group=_host_group())
    return tuple(int(count) for count in counts)


def begin(rows: int) -> int:
    """Where this process's rows begin among everybody's, of which it has so many."""
    return sum(_sizes(rows)[: rank()])


def gather(rows: Shaped[Tensor, "local ..."]) -> Shaped[Tensor, "world ..."]:
    """Every process's rows, in rank order, with gradient.

    Backward sums over processes what each of them derived for a row, so a loss that is the mean over *local* rows,
    once its gradients are averaged by data parallelism, has the gradient of the mean over *all* rows.
    Every process must bring the same number of rows, or those it said in `shares`.
    """
    if world_size() == 1:
        return rows
    return _Gather.apply(rows, _sizes(len(rows)))  # type: ignore[no-any-return]


def mean(rows: Float[Tensor, "local ..."]) -> Float[Tensor, ...]:
    """The mean over everybody's rows, the same on every process, with gradient.

    rows: some of each image, the same number for all of them.
    """
    if world_size() == 1:
        return rows.mean(0)
    return _Sum.apply(rows.mean(0) * share())  # type: ignore[no-any-return]


def share() -> float:
    """Which part of the batch is here."""
    sizes = _sizes(1) if _shares is None else _shares
    return sizes[rank()] / sum(sizes)


def stack(numbers: Shaped[Tensor, ...]) -> Shaped[Tensor, "world ..."]:
    """Every process's tensor of one shape, without gradient."""
    parts = [torch.empty_like(numbers, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, numbers.detach().contiguous())
    return torch.stack(parts)


def total(numbers: Float[Tensor, ...]) -> Float[Tensor, ...]:
    """The sum of every process's tensor, without gradient."""
    result = numbers.detach().clone(memory_format=torch.contiguous_format)
    if world_size() > 1:
        dist.all_reduce(result)
    return result


def largest(number: int) -> int:
    """The largest of everybody's numbers."""
    if world_size() == 1:
        return number
    result = torch.tensor(number)
    dist.all_reduce(result, dist.ReduceOp.MAX, group=_host_group())
    return int(result)


def merged(items: dict[str, str]) -> dict[str, str]:
    """Everybody's items."""
    if world_size() == 1:
        return items
    parts: list[Any] = [None] * world_size()
    dist.all_gather_object(parts, items, group=_host_group())
    return {name: value for part in parts for name, value in part.items()}


def _sizes(rows: int) -> tuple[int, ...]:
    """Rows of every process, where this one has so many."""
    if _shares is None or world_size() == 1:
        return (rows,) * world_size()
    assert rows == _shares[rank()], f"{rows} rows, where {_shares[rank()]} were announced"
    return _shares


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...]) -> Tensor:
        ctx.sizes = sizes
        padded = rows.contiguous()
        if len(rows) < max(sizes):  # every backend can gather parts of one size
            padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])])
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        mine = total(gradients[0]).split(ctx.sizes)[rank()]
        return mine, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, numbers: Tensor) -> Tensor:
        return total(numbers)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return total(gradients[0])


_group: tuple[Any, Any] | None = None  # the default group, and the one made for it


def _host_group() -> Any:
    """A group that tells numbers on the CPU, so that a GPU's queue goes on meanwhile. All make it at the same time."""
    global _group
    if dist.get_backend() == "gloo":
        return None  # the default group is one
    if _group is None or _group[0] is not dist.group.WORLD:
        _group = dist.group.WORLD, dist.new_group(backend="gloo")
    return _group[1]
