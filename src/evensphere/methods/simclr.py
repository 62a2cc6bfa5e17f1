"""SimCLR (Chen et al., ICML 2020), as the GH paper's authors run it.

loss = mean over images of NT-Xent(z1, z2),   z = projector(encoder(view))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.errors import unknown_name
from evensphere.methods.base import Method, Output
from evensphere.nn.head import projector
from evensphere.ops import collective
from evensphere.ops.contrast import info_nce
from evensphere.ops.schedule import Progress, Temperature


class SimCLR(Method):
    """NT-Xent between two views.

    temperature: of NT-Xent, > 0 (the paper: 0.2), or one that changes over time, such as '1.0 to 0.1 every 400 epochs'
        (see ops.schedule.Temperature). embedding_dim: the projector's output width.
    batching: "separate" passes the two views through the encoder one after the other, so that each has BatchNorm
        statistics of its own, as the paper's code does; "joint" passes them as one batch of 2B, a different method.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        temperature: Temperature | str | float = 0.2,
        batching: Literal["separate", "joint"] = "separate",
    ) -> None:
        super().__init__()
        if batching not in ("separate", "joint"):
            raise unknown_name("batching", batching, ("separate", "joint"))
        self.encoder = encoder
        self.projector = projector(int(encoder.num_features), embedding_dim)  # type: ignore[arg-type]
        self.embedding_dim = embedding_dim
        self.temperature = Temperature.parse(temperature)
        self.batching = batching

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = self.embed(views)
        per_sample = self.contrast(z1, z2, self.temperature(progress))
        loss = collective.mean(per_sample)
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, per_sample)

    def contrast(
        self, z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"], temperature: float
    ) -> Float[Tensor, " batch"]:
        """The loss of each image."""
        return info_nce(z1, z2, temperature)

    def embed(self, views: Sequence[Float[Tensor, "batch c h w"]]) -> tuple[Tensor, ...]:
        """The projector's output of each view."""
        if self.batching == "joint":
            return tuple(self.projector(self.encoder(torch.cat(tuple(views)))).chunk(len(views)))
        return tuple(self.projector(self.encoder(view)) for view in views)
