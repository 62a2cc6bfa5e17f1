"""VICReg (Bardes, Ponce & LeCun, ICLR 2022): views agree, no feature collapses, and no two features vary together.

B images, D features, z and z' the embeddings of an image's two views:

    invariance   s = mean over images and features of  (z - z')^2
    variance     v = mean over features and views of   max(0, 1 - sqrt(var + 0.0001))
    covariance   c = sum over views of                 sum over i != j of  cov_ij^2 / D

    loss = 25 s + 25 v + 1 c

Variances and covariances are over the batch of all processes, divided by B - 1. The scaling is that of the authors'
code, which their weights 25, 25, 1 belong to; the paper's text sums s over the features and v over the views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.ops import collective
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Progress

_EPSILON = 1e-4  # inside the square root, whose slope is infinite at 0


class VicregTerms(NamedTuple):
    """The three terms of the loss, not yet weighted."""

    invariance: Float[Tensor, ""]
    variance: Float[Tensor, ""]
    covariance: Float[Tensor, ""]


def vicreg_terms(z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"]) -> VicregTerms:
    """The three terms for projector outputs of two views, this process's rows."""
    with no_autocast(z1):
        a, b = (collective.gather(real(z)) for z in (z1, z2))
        return VicregTerms(
            invariance=mse_loss(a, b),
            variance=(_missing_spread(a) + _missing_spread(b)) / 2,
            covariance=_shared_variation(a) + _shared_variation(b),
        )


def _missing_spread(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """How much the features' standard deviations fall short of 1."""
    return relu(1 - (z.var(0) + _EPSILON).sqrt()).mean()


def _shared_variation(z: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Squared covariances of different features, per feature."""
    centred = z - z.mean(0)
    covariance = centred.T @ centred / (len(z) - 1)
    return covariance.square().fill_diagonal_(0).sum() / z.shape[1]


class VICReg(Method):
    """Invariance, variance and covariance, each with a weight.

    embedding_dim: width D of the projector's output; wide helps (the paper: 8192). hidden: width of its two hidden
        layers; None takes D, as the paper does.
    invariance_weight, variance_weight, covariance_weight: >= 0 (the paper: 25, 25, 1).

    With these weights and plain SGD it wants about a thirtieth of SimCLR's learning rate; the authors use LARS, which
    does not see how large a loss is.
    """

    per_sample = False

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 512,
        hidden: int | None = None,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = (invariance_weight, variance_weight, covariance_weight)
        for name, weight in zip(VicregTerms._fields, self.weights, strict=True):
            if not weight >= 0:
                raise InputError(f"{name}_weight = {weight} was given; it must be at least 0.")
        hidden = hidden or embedding_dim
        self.encoder = encoder
        self.projector = mlp([int(encoder.num_features), hidden, hidden, embedding_dim])  # type: ignore[arg-type]
        self.embedding_dim = embedding_dim

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        terms = vicreg_terms(z1, z2)
        loss = torch.stack([w * term for w, term in zip(self.weights, terms, strict=True)]).sum()
        logs = {name: term.detach() for name, term in terms._asdict().items()}
        return Output(loss, (z1, z2), {"ssl": loss.detach(), **logs})
