"""An operation on some images of a batch, in place."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float32
from torch import Tensor


def update(
    pixels: Float32[Tensor, "batch c h w"],
    concerned: Bool[Tensor, " batch"],
    operation: Callable[..., Tensor],
    *parameters: Float32[Tensor, " batch"],
) -> None:
    """`operation` in place on the images concerned, each with its own parameters.

    concerned and parameters live on the CPU, where counting the images concerned makes no GPU wait.
    """
    picked = concerned.nonzero()[:, 0]
    if len(picked) > 0:
        place = picked.to(pixels.device)
        theirs = (parameter[picked].to(pixels.device) for parameter in parameters)
        pixels.index_copy_(0, place, operation(pixels.index_select(0, place), *theirs))
