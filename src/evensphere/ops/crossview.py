"""What some views of an image are assigned to, predicted from its other views."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import log_softmax

from evensphere.ops.precision import no_autocast, real


def cross_view_entropy(
    scores: Float[Tensor, "views batch k"], labels: Float[Tensor, "labelled batch k"], temperature: float
) -> Float[Tensor, " batch"]:
    """The cross-entropy - sum_k q_k log p_k of each image, averaged over all pairs of a labelled view (its q) and
    another view (its p).

    scores: logits of every view, p = softmax(scores / temperature). labels: of the first of these views, rows that sum
        to 1, without gradient. Computed in float32, or float64 for float64 scores.
    """
    everything = labels.sum(0)
    total = labels.new_zeros(labels.shape[1])
    with no_autocast(scores):
        for view, logits in enumerate(scores):
            others = everything - labels[view] if view < len(labels) else everything
            total = total - (others * log_softmax(real(logits) / temperature, dim=-1)).sum(-1)
    return total / (len(labels) * (len(scores) - 1))
