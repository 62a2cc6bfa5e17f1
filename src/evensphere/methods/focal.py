"""Focal: SimCLR whose easy pairs count less, the first of the GH paper's baselines.

    loss = mean over images and views of  -(1 - p)^gamma log p,   p = pos / (pos + negatives)

The focal weight is that of Lin et al. (ICCV 2017), applied to NT-Xent's share of the positive pair.
Lightly has no focal loss to compare with; the golden vectors are what the authors' code computes.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.methods.simclr import SimCLR
from evensphere.ops.contrast import focal_info_nce
from evensphere.ops.schedule import Temperature


class Focal(SimCLR):
    """SimCLR with the focal weight.

    gamma: >= 0; 0 is SimCLR (the authors: 2). The other options are SimCLR's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        temperature: Temperature | str | float = 0.2,
        gamma: float = 2.0,
        batching: Literal["separate", "joint"] = "separate",
    ) -> None:
        super().__init__(encoder, embedding_dim, temperature, batching)
        if not gamma >= 0:
            raise InputError(f"gamma = {gamma} was given; it must be at least 0 (the authors: 2).")
        self.gamma = gamma

    def contrast(
        self, z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"], temperature: float
    ) -> Float[Tensor, " batch"]:
        return focal_info_nce(z1, z2, temperature, self.gamma)
