"""An operation on some images of a batch."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float32
from torch import Tensor

from evensphere.ops.transfer import send


def update(
    pixels: Float32[Tensor, "batch c h w"],
    concerned: Bool[Tensor, " batch"],
    operation: Callable[..., Tensor],
    *parameters: Float32[Tensor, " batch"],
) -> Float32[Tensor, "batch c h w"]:
    """The batch with `operation` done on the images concerned, each with its own parameters; `pixels` is used up.

    concerned and parameters live on the CPU, where counting the images concerned makes no GPU wait.
    """
    picked = concerned.nonzero()[:, 0]
    if len(picked) == 0:
        return pixels
    if len(picked) == len(pixels):
        return operation(pixels, *(send(parameter, pixels.device) for parameter in parameters))
    place = send(picked, pixels.device)
    theirs = (send(parameter[picked], pixels.device) for parameter in parameters)
    return pixels.index_copy_(0, place, operation(pixels.index_select(0, place), *theirs))
