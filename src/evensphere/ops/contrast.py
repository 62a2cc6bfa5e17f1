"""Contrastive losses between two views of a batch, one number per image.

B images in the batch, D width of the embeddings. Under several processes the rows stay local and the negatives are
everybody's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.ops import collective


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
    return (-((1 - log_p.exp()) ** gamma) * log_p).mean(0)


def _log_positive_share(z1: Tensor, z2: Tensor, temperature: float) -> Float[Tensor, "2 batch"]:
    """log( pos / (pos + negatives) ) of both views of each image."""
    with torch.autocast(z1.device.type, enabled=False):
        a, b = (normalize(z if z.dtype == torch.float64 else z.float(), dim=1) for z in (z1, z2))
        keys = torch.stack([collective.gather(a), collective.gather(b)]).flatten(0, 1)  # [2 * world, D]
        logits = torch.cat([a, b]) @ keys.T / temperature
        place = torch.arange(len(a), device=a.device) + collective.rank() * len(a)
        first, second = place, place + len(keys) // 2
        itself, partner = torch.cat([first, second]), torch.cat([second, first])
        logits = logits.scatter(1, itself[:, None], -torch.inf)  # an embedding is no negative of its own
        positive = logits.gather(1, partner[:, None])[:, 0]
        return (positive - logits.logsumexp(1)).view(2, -1)
