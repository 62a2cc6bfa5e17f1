"""MoCo v3 (Chen, Xie & He, ICCV 2021): contrast within the batch, between a predictor's queries and a twin's keys.

    q = predictor(projector(encoder(view))),   k = twin(view)
    loss = mean over images of  ctr(q1, k2) + ctr(q2, k1)
    ctr(q, k)_i = -2t log( exp(q_i.k_i / t) / sum over images j of exp(q_i.k_j / t) ),   unit vectors
    twin <- m twin + (1 - m) (encoder, projector),   m rising to 1 along half a cosine

No queue: a large batch (the paper: 4096) takes its place. Projector: Linear(hidden), BatchNorm, ReLU, ..., Linear(D),
BatchNorm without scale and shift. Predictor: Linear(hidden), BatchNorm, ReLU, Linear(D), for ViTs with that BatchNorm
too. The frozen patch projection that steadies the paper's ViTs is the encoder's business.

Lightly has no loss with MoCo v3's factor 2t and positives on the diagonal alone to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.nn.memory import EmaTwin
from evensphere.ops import collective
from evensphere.ops.contrast import batch_info_nce
from evensphere.ops.schedule import Progress, Temperature
from evensphere.values import check_whole


class MoCoV3(Method):
    """Symmetric InfoNCE between predictions and a momentum twin's projections of the batch.

    embedding_dim: D, the width of projector and predictor (the paper: 256). hidden_dim: of both (the paper: 4096).
    projector_layers: >= 1 (the authors: 2 for ResNets, 3 for ViTs).
    predictor_norm: whether the predictor's output has a BatchNorm (the authors: for ViTs).
    momentum: of the twin at the start, 0 to 1 (the paper: 0.99; for 1000 epochs 0.996).
    temperature: > 0 (the authors: 1.0 for ResNets, 0.2 for ViTs), or one that changes over time (ops.schedule).
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 256,
        hidden_dim: int = 4096,
        projector_layers: int = 2,
        predictor_norm: bool = False,
        momentum: float = 0.99,
        temperature: Temperature | str | float = 1.0,
    ) -> None:
        super().__init__()
        check_whole("projector_layers", projector_layers, 1, 100)
        features = int(encoder.num_features)  # type: ignore[arg-type]
        hidden = (hidden_dim,) * (projector_layers - 1)
        self.encoder = encoder
        self.projector = mlp((features, *hidden, embedding_dim), last_norm="plain")
        self.predictor = mlp(
            (embedding_dim, hidden_dim, embedding_dim), last_norm="plain" if predictor_norm else "none"
        )
        self.twin = EmaTwin(nn.Sequential(encoder, self.projector), momentum, rising=True)
        self.embedding_dim = embedding_dim
        self.temperature = Temperature.parse(temperature)

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        k1, k2 = (self.twin(view) for view in views)
        t = self.temperature(progress)
        per_sample = self._contrast(self.predictor(z1), k2, t) + self._contrast(self.predictor(z2), k1, t)
        loss = collective.mean(per_sample)
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, per_sample)

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        self.twin.follow(nn.Sequential(self.encoder, self.projector), progress)

    def _contrast(self, queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
        return 2 * temperature * batch_info_nce(queries, keys, temperature)
