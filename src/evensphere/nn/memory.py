"""Memories with one row per image."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class IndexedEma:
    """An exponential moving average of a vector for every image, updated on the visits of that image.

    The first visit copies the vector; nothing is ever read from a row that was not visited. It is checkpoint state but
    deliberately no module buffer: data parallelism would send all of it to every process at every step.

    values: [N, K] in `dtype` (half precision halves the memory). seen: [N].
    """

    values: Float[Tensor, "n k"]
    seen: Bool[Tensor, " n"]

    def __init__(self, num_rows: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        self.values = torch.zeros(num_rows, width, dtype=dtype)
        self.seen = torch.zeros(num_rows, dtype=torch.bool)

    @torch.no_grad()
    def update(self, index: Int64[Tensor, " batch"], vectors: Float[Tensor, "batch k"], momentum: float) -> None:
        """values[i] <- momentum * values[i] + (1 - momentum) * vector, or the vector itself on the first visit.

        index: rows, each at most once. momentum: in [0, 1].
        """
        self.to(vectors.device)
        old, new = self.values[index].float(), vectors.float()
        kept = torch.where(self.seen[index, None], momentum, 0.0)
        self.values[index] = torch.lerp(new, old, kept).to(self.values.dtype)
        self.seen[index] = True

    def to(self, device: torch.device) -> None:
        if self.values.device != device:
            self.values, self.seen = self.values.to(device), self.seen.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        return {"values": self.values, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert state["values"].shape == self.values.shape
        self.values, self.seen = state["values"].to(self.values.dtype, copy=True), state["seen"].clone()
