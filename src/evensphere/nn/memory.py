"""What methods remember from step to step: a vector of every image, a slower network, the latest batches."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops import collective
from evensphere.ops.draw import seed_for, uniform
from evensphere.ops.schedule import Progress, cosine
from evensphere.values import check_memory


class IndexedEma:
    """An exponential moving average of a vector for every image, updated on the visits of that image.

    The first visit copies the vector; nothing is ever read from a row that was not visited. It is checkpoint state but
    deliberately no module buffer: data parallelism would send all of it to every process at every step.

    values: [N, K] in `dtype`. bfloat16 halves the memory; its numbers are rounded up or down by chance, in proportion,
        since most steps of a slow average are smaller than its digits and would all be rounded away.
    seen: [N]. updates: calls so far, which the chance is addressed by.
    """

    values: Float[Tensor, "n k"]
    seen: Bool[Tensor, " n"]
    updates: int

    def __init__(self, num_rows: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        check_memory(f"A memory of {num_rows:,} x {width:,} numbers", float(num_rows) * width * dtype.itemsize)
        self.values = torch.zeros(num_rows, width, dtype=dtype)
        self.seen = torch.zeros(num_rows, dtype=torch.bool)
        self.updates = 0

    @torch.no_grad()
    def update(
        self, index: Int64[Tensor, " batch"], vectors: Float[Tensor, "batch k"], momentum: float
    ) -> Float[Tensor, "batch k"]:
        """values[i] <- momentum * values[i] + (1 - momentum) * vector, or the vector itself on the first visit.

        index: rows, each at most once. momentum: in [0, 1]. Returns what these rows hold now.
        """
        self.to(vectors.device)
        old, new = self.values[index].float(), vectors.float()
        kept = torch.where(self.seen[index, None], momentum, 0.0)
        now = self._rounded(torch.lerp(new, old, kept), index)
        self.values[index] = now
        self.updates += 1
        self.seen.index_fill_(0, index, True)
        return now

    def _rounded(self, exact: Float[Tensor, "batch k"], index: Int64[Tensor, " batch"]) -> Float[Tensor, "batch k"]:
        if self.values.dtype != torch.bfloat16:
            return exact.to(self.values.dtype)
        # bfloat16 is the upper half of a float32: chance added to the lower half carries as often as it should
        chance = (uniform(0, "memory/rounding", self.updates, index, exact.shape[1]) * 2**16).to(torch.int32)
        return ((exact.view(torch.int32) + chance) & -(2**16)).view(torch.float32).to(torch.bfloat16)

    def to(self, device: torch.device) -> None:
        if self.values.device != device:
            self.values, self.seen = self.values.to(device), self.seen.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values, "seen": self.seen, "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert state["values"].shape == self.values.shape
        self.values, self.seen = state["values"].to(self.values.dtype, copy=True), state["seen"].clone()
        self.updates = int(state.get("updates", 0))  # checkpoints of version 0.1 have none


class EmaTwin(nn.Module):
    """A slower copy of a network, whose parameters are a moving average of the network's:

        twin <- m twin + (1 - m) online        after every step

    It starts equal to the network and takes no gradient. BatchNorm in it normalises by the batch that the twin sees, as
    in the papers that use a twin; the running statistics that it keeps are its own, moved by its own forward passes.

    momentum: m, in [0, 1]; 0 is a copy, 1 never moves.
    rising: whether m rises to 1 over the run along half a cosine (BYOL: m = 1 - (1 - momentum)(cos(pi k / K) + 1)/2 at
        step k of K). It stays constant where the length of the run is unknown.
    """

    def __init__(self, online: nn.Module, momentum: float, rising: bool = False) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise InputError(f"momentum = {momentum} was given; it must be between 0 and 1.")
        self.network = copy.deepcopy(online).requires_grad_(False)
        self.momentum, self.rising = momentum, rising

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch dim"]:
        result: Tensor = self.network(x)
        return result

    @torch.no_grad()
    def follow(self, online: nn.Module, progress: Progress) -> None:
        """Move towards the network after a step. Buffers stay: see above."""
        mine: list[Tensor] = list(self.network.parameters())
        theirs: list[Tensor] = list(online.parameters())
        assert len(mine) == len(theirs)
        torch._foreach_lerp_(mine, theirs, 1 - self.momentum_at(progress))

    def momentum_at(self, progress: Progress) -> float:
        if not self.rising or progress.total_steps is None:
            return self.momentum
        return cosine(self.momentum, 1.0, progress.step / progress.total_steps)


class Queue(nn.Module):
    """The embeddings of the latest images: a ring of `length` unit vectors, first in, first out.

    It starts with random directions, as MoCo's and NNCLR's do, the same on every process; so does what comes in, since
    every process pushes everybody's batch. The length need not be a multiple of the batch. It is checkpoint state but
    no module buffer: data parallelism would send all of it to every process at every step.

    length: rows L, >= 1. width: D of each.
    """

    rows: Float[Tensor, "length width"]

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        if length < 1:
            raise InputError(f"A queue of {length} embeddings was asked for; give at least 1.")
        check_memory(f"A queue of {length:,} x {width:,} numbers", 4.0 * length * width)
        generator = torch.Generator().manual_seed(seed_for(0, "queue"))
        self.rows = normalize(torch.randn(length, width, generator=generator), dim=1)
        self.next = 0  # the row that is replaced next, which is the oldest
        self.filled = 0  # rows that hold an embedding

    def contents(self, like: Float[Tensor, "batch width"]) -> Float[Tensor, "length width"]:
        """All rows, on the device of `like`, in no particular order."""
        self._to(like.device)
        return self.rows

    def pushed(self, like: Float[Tensor, "batch width"]) -> Float[Tensor, "filled width"]:
        """The rows that hold an embedding, for those who can do without the random ones."""
        return self.contents(like)[: self.filled]

    @torch.no_grad()
    def push(self, vectors: Float[Tensor, "batch width"]) -> None:
        """Replace the oldest rows by every process's vectors, scaled to unit length."""
        self._to(vectors.device)
        new = collective.gather(normalize(vectors.detach().to(self.rows.dtype), dim=1))
        place = torch.arange(self.next, self.next + len(new), device=new.device) % len(self.rows)
        self.rows[place[-len(self.rows) :]] = new[-len(self.rows) :]  # of more than fit, the last remain
        self.next = (self.next + len(new)) % len(self.rows)
        self.filled = min(self.filled + len(new), len(self.rows))

    def _to(self, device: torch.device) -> None:
        if self.rows.device != device:
            self.rows = self.rows.to(device)

    def get_extra_state(self) -> dict[str, Any]:
        return {"rows": self.rows, "next": self.next, "filled": self.filled}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        assert state["rows"].shape == self.rows.shape
        self.rows = state["rows"].to(self.rows.dtype, copy=True)
        self.next, self.filled = state["next"], state["filled"]
