"""Losses that compare two views of a batch, one number per image.

B images in the batch, D width of the embeddings. Under several processes the rows stay local and the negatives are
everybody's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.functional import normalize

from evensphere.ops import collective
from evensphere.ops.precision import no_autocast, real


def info_nce(
    z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"], temperature: float = 0.2
) -> Float[Tensor, " batch"]:
    """NT-Xent (Chen et al., ICML 2020): per image, the mean over its two views of

        -log( pos / (pos + sum of the 2B-2 negatives) ),   pos, neg = exp(cosine / temperature)

    z1, z2: projector outputs of the two views, not normalised. Computed in float32 (float64 for float64 input) whatever
    precision the encoder runs in.
    """
    return (-_log_positive_share(z1, z2, temperature)).mean(0)


def focal_info_nce(
    z1: Float[Tensor, "batch dim"], z2: Float[Tensor, "batch dim"], temperature: float = 0.2, gamma: float = 2.0
) -> Float[Tensor, " batch"]:
    """NT-Xent with the focal weight (Lin et al., ICCV 2017): -(1 - p)^gamma log p with p = pos / (pos + negatives)."""
    log_p = _log_positive_share(z1, z2, temperature)
    # above 0, where a power below 1 has no gradient
    missing = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
    return (-(missing**gamma) * log_p).mean(0)


def _log_positive_share(z1: Tensor, z2: Tensor, temperature: float) -> Float[Tensor, "2 batch"]:
    """log( pos / (pos + negatives) ) of both views of each image."""
    with no_autocast(z1):
        a, b = _unit(z1), _unit(z2)
        if collective.world_size() == 1 and temperature >= _SHARPEST:
            share: Tensor = _SymmetricShare.apply(torch.cat([a, b]), temperature)
            return share.view(2, -1)
        keys = torch.stack([collective.gather(a), collective.gather(b)]).flatten(0, 1)  # [2 * world, D]
        logits = (torch.cat([a, b]) / temperature) @ keys.T
        place = torch.arange(len(a), device=a.device) + collective.begin(len(a))
        first, second = place, place + len(keys) // 2
        itself, partner = torch.cat([first, second]), torch.cat([second, first])
        logits.scatter_(1, itself[:, None], -torch.inf)  # an embedding is no negative of its own
        positive = logits.gather(1, partner[:, None])[:, 0]
        return (positive - logits.logsumexp(1)).view(2, -1)


_SHARPEST = 0.05  # from here on exp(cosine / temperature) is far from the ends of float32's range


class _SymmetricShare(torch.autograd.Function):
    """`_log_positive_share` of 2B unit vectors that are all here, by hand: in less than half the time.

    The matrix E of exp(cosine / temperature) is symmetric, so that what reaches a vector as a query and what
    reaches it as a key are one matrix product. With r the row sums of E and g the gradient of the shares,

        dz = -(1/t) (E * (g_i / r_i + g_j / r_j) - (g_i + g_j where j is the partner of i)) z
    """

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, temperature: float) -> Tensor:
        batch = len(z) // 2
        scaled = z * temperature**-0.5
        shares = scaled @ scaled.T
        shares.fill_diagonal_(-torch.inf)  # an embedding is no negative of its own
        positive = shares.diagonal(batch).repeat(2)
        total = shares.exp_().sum(1)
        ctx.save_for_backward(z, shares, total)
        ctx.temperature = temperature  # type: ignore[attr-defined]
        shares_of_positives: Tensor = (positive - total.log()).clamp_(max=0)  # as it is but for rounding
        return shares_of_positives

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        z, shares, total = ctx.saved_tensors  # type: ignore[attr-defined]
        batch = len(z) // 2
        weight = gradient / total
        pull = (weight[:, None] + weight).mul_(shares)
        of_pair = gradient[:batch] + gradient[batch:]
        pull.diagonal(batch).sub_(of_pair)
        pull.diagonal(-batch).sub_(of_pair)
        with no_autocast(z):
            return (pull @ z).div_(-ctx.temperature), None  # type: ignore[attr-defined]


def queue_info_nce(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    negatives: Float[Tensor, "length dim"],
    temperature: float = 0.2,
) -> Float[Tensor, " batch"]:
    """InfoNCE against a queue (He et al., CVPR 2020, equation 1): per image, q and k of unit length,

        -log( exp(q.k / t) / (exp(q.k / t) + sum over negatives n of exp(q.n / t)) )

    negatives: of unit length already. The other images of the batch are none.
    """
    with no_autocast(queries):
        q = _unit(queries)
        positive = (q * _unit(keys)).sum(1) / temperature
        others = (q @ negatives.to(q).T / temperature).logsumexp(1)
        return torch.logaddexp(positive, others) - positive


def batch_info_nce(
    queries: Float[Tensor, "batch dim"], keys: Float[Tensor, "batch dim"], temperature: float = 0.2
) -> Float[Tensor, " batch"]:
    """InfoNCE of one direction against the keys of the batch (Chen et al., ICCV 2021, equation 1): per image i, q and k
    of unit length,

        -log( exp(q_i.k_i / t) / sum over images j of exp(q_i.k_j / t) )
    """
    with no_autocast(queries):
        q, k = _unit(queries), collective.gather(_unit(keys))
        logits = q @ k.to(q).T / temperature
        own = torch.arange(len(q), device=q.device)[:, None] + collective.begin(len(q))
        return logits.logsumexp(1) - logits.gather(1, own)[:, 0]


def cosine_of_pairs(a: Float[Tensor, "batch dim"], b: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
    """The cosine between the two vectors of each image."""
    return (_unit(a) * _unit(b)).sum(1)


def _unit(z: Tensor) -> Tensor:
    """Rows of unit length, in float32 or float64."""
    return normalize(real(z), dim=1)
