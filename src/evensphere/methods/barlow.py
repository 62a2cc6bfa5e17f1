"""Barlow Twins (Zbontar et al., ICML 2021): two views agree in every feature, and no feature repeats another.

    C_ij = mean over images of  a_i b_j      a, b: the two views' embeddings, each feature standardised over the batch
    loss = scale * ( sum_i (1 - C_ii)^2  +  redundancy_weight * sum over i != j of C_ij^2 )
                     invariance                                 redundancy

The batch is everybody's, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.ops import collective
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Progress

_EPSILON = 1e-5  # BatchNorm's, with which the authors standardise


class BarlowTerms(NamedTuple):
    """The two terms of the loss, not yet weighted."""

    invariance: Float[Tensor, ""]
    redundancy: Float[Tensor, ""]


def barlow_terms(z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"]) -> BarlowTerms:
    """How far the two views' cross-correlation is from the identity, on the diagonal and off it.

    z1, z2: projector outputs of the two views, this process's rows.
    """
    with no_autocast(z1):
        a, b = (_standardised(collective.gather(real(z))) for z in (z1, z2))
        correlation = a.T @ b / len(a)
        return BarlowTerms(
            invariance=(1 - correlation.diagonal()).square().sum(),
            redundancy=correlation.square().fill_diagonal_(0).sum(),
        )


def _standardised(z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    return (z - z.mean(0)) / (z.var(0, correction=0) + _EPSILON).sqrt()


class BarlowTwins(Method):
    """Cross-correlation of two views brought to the identity.

    embedding_dim: width D of the projector's output; wide helps (the paper: 8192). hidden: width of its two hidden
        layers; None takes D, as the paper does.
    redundancy_weight: the paper's lambda, >= 0 (0.005).
    scale: of the whole loss, > 0; the loss grows with D (the authors' code: 0.024 for D = 8192, with LARS).
    """

    per_sample = False

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 512,
        hidden: int | None = None,
        redundancy_weight: float = 0.005,
        scale: float = 0.024,
    ) -> None:
        super().__init__()
        if not redundancy_weight >= 0:
            raise InputError(
                f"redundancy_weight = {redundancy_weight} was given; it must be at least 0 (the paper: 0.005)."
            )
        if not scale > 0:
            raise InputError(f"scale = {scale} was given; it must be above 0.")
        hidden = hidden or embedding_dim
        self.encoder = encoder
        self.projector = mlp([int(encoder.num_features), hidden, hidden, embedding_dim])  # type: ignore[arg-type]
        self.embedding_dim = embedding_dim
        self.redundancy_weight, self.scale = redundancy_weight, scale

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        terms = barlow_terms(z1, z2)
        loss = self.scale * (terms.invariance + self.redundancy_weight * terms.redundancy)
        logs = {"ssl": loss.detach(), "invariance": terms.invariance.detach(), "redundancy": terms.redundancy.detach()}
        return Output(loss, (z1, z2), logs)
