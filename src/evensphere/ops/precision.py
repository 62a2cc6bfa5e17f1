"""The precision losses are computed in, whatever the encoder runs in."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor


def real(values: Float[Tensor, "*shape"]) -> Float32[Tensor, "*shape"] | Float64[Tensor, "*shape"]:
    """The values in float32, or as they are in float64. With gradient."""
    return values if values.dtype == torch.float64 else values.float()


def no_autocast(like: Tensor) -> torch.autocast:
    """A context in which matrix products keep the precision of their factors, on the device of `like`."""
    return torch.autocast(like.device.type, enabled=False)
