"""BYOL (Grill et al., NeurIPS 2020): predict what a slow twin makes of the other view, with no negatives at all.

    z = projector(encoder(view)),   p = predictor(z),   t = twin(view)
    loss = mean over images of  |p1 - t2|^2 + |p2 - t1|^2 = (2 - 2 cos(p1, t2)) + (2 - 2 cos(p2, t1)),   unit vectors
    twin <- m twin + (1 - m) (encoder, projector),   m = 1 - (1 - momentum)(cos(pi k / K) + 1)/2   at step k of K

Projector and predictor: Linear(hidden), BatchNorm, ReLU, Linear(D); the output has no BatchNorm.

Cosines of nearly equal vectors are flat: the gradient that reaches the encoder is about a tenth of SimCLR's, so a loss
added to this one wants about a tenth of the weight it has there.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.nn.memory import EmaTwin
from evensphere.ops import collective
from evensphere.ops.contrast import cosine_of_pairs
from evensphere.ops.schedule import Progress


class BYOL(Method):
    """Regression of a momentum twin's projections.

    embedding_dim: D, the width of projector and predictor (the paper: 256).
    hidden_dim: of both (the paper: 4096).
    momentum: of the twin at the start, 0 to 1, rising to 1 (the paper: 0.996 for 1000 epochs of ImageNet, 0.99 for 300
        and fewer; the shorter the run, the lower).
    """

    def __init__(
        self, encoder: nn.Module, embedding_dim: int = 256, hidden_dim: int = 4096, momentum: float = 0.996
    ) -> None:
        super().__init__()
        features = int(encoder.num_features)  # type: ignore[arg-type]
        self.encoder = encoder
        self.projector = mlp((features, hidden_dim, embedding_dim))
        self.predictor = mlp((embedding_dim, hidden_dim, embedding_dim))
        self.twin = EmaTwin(nn.Sequential(encoder, self.projector), momentum, rising=True)
        self.embedding_dim = embedding_dim

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        t1, t2 = (self.twin(view) for view in views)
        agreement = cosine_of_pairs(self.predictor(z1), t2) + cosine_of_pairs(self.predictor(z2), t1)
        per_sample = 4 - 2 * agreement
        loss = collective.mean(per_sample)
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, per_sample)

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        self.twin.follow(nn.Sequential(self.encoder, self.projector), progress)
