"""What was computed on one device, on its way to another, without either waiting for the other."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; itself where it is there already.

    A plain `.to` to a GPU makes the CPU wait until the GPU has done all it was asked for. From pinned memory the copy
    takes its place in the GPU's queue, and the CPU goes on.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Late:
    """A number on its way from the device to the host, where it is wanted some time later."""

    def __init__(self, number: Shaped[Tensor, ""]) -> None:
        # where nothing tells of the copy's arrival, as on MPS, it is waited for
        self._copy = number.detach().to("cpu", non_blocking=number.is_cuda, copy=True)
        self._arrival = torch.cuda.Event() if number.is_cuda else None
        if self._arrival is not None:
            self._arrival.record()

    def read(self) -> float:
        """The number; waits until it is there."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return float(self._copy)
