"""NNCLR (Dwibedi et al., ICCV 2021): the positive of a view is the nearest neighbour of the other one, from a queue.

    z = projector(encoder(view)),   p = predictor(z),   Q = projections of the latest images' first views
    n = the vector of Q nearest to z,   no gradient
    loss = mean over images of  L(n1, p2)/2 + L(n2, p1)/2                                    (the paper's algorithm 1)
    L(n, p)_i = -log( exp(n_i.p_i / t) / sum over images j of exp(n_i.p_j / t) ),   unit vectors

Q starts with random directions. Projector: three Linear layers, each with BatchNorm, ReLU between them. Predictor:
Linear(hidden), BatchNorm, ReLU, Linear(D).

Lightly's loss for NNCLR is NT-Xent, with other negatives; its search for the neighbour is compared in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.nn.memory import Queue
from evensphere.ops import collective
from evensphere.ops.contrast import batch_info_nce
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Progress, Temperature


class NNCLR(Method):
    """InfoNCE between one view's nearest neighbour and the other view's prediction.

    embedding_dim: D, the width of projector and predictor (the paper: 256).
    hidden_dim, predictor_dim: hidden widths of the projector and the predictor (the paper: 2048, 4096).
    queue_size: >= 1 (the paper: 98304). In a queue much longer than the data set an image's nearest neighbour is mostly
        itself, some epochs ago.
    temperature: > 0 (the paper: 0.1), or one that changes over time (ops.schedule).
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 256,
        hidden_dim: int = 2048,
        predictor_dim: int = 4096,
        queue_size: int = 98304,
        temperature: Temperature | str | float = 0.1,
    ) -> None:
        super().__init__()
        features = int(encoder.num_features)  # type: ignore[arg-type]
        self.encoder = encoder
        self.projector = mlp((features, hidden_dim, hidden_dim, embedding_dim), last_norm="affine")
        self.predictor = mlp((embedding_dim, predictor_dim, embedding_dim), last_bias=True)
        self.queue = Queue(queue_size, embedding_dim)
        self.embedding_dim = embedding_dim
        self.temperature = Temperature.parse(temperature)

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        n1, n2 = self._nearest(z1), self._nearest(z2)
        t = self.temperature(progress)
        per_sample = (batch_info_nce(n1, p2, t) + batch_info_nce(n2, p1, t)) / 2
        loss = collective.mean(per_sample)
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, per_sample)

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        self.queue.push(output.embeddings[0])

    @torch.no_grad()
    def _nearest(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """The queue's vector with the largest cosine to each projection."""
        z = real(z)
        support = self.queue.contents(z).to(z.dtype)
        with no_autocast(z):
            return support[(normalize(z, dim=1) @ support.T).argmax(1)]
