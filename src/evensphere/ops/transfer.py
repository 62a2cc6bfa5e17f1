"""What was computed on the CPU, on its way to a GPU, without either waiting for the other."""

from __future__ import annotations

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; itself where it is there already.

    A plain `.to` to a GPU makes the CPU wait until the GPU has done all it was asked for. From pinned memory the copy
    takes its place in the GPU's queue, and the CPU goes on.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
