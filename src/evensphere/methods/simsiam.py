"""SimSiam (Chen & He, CVPR 2021): predict the other view's projection, through which no gradient flows.

    z = projector(encoder(view)),   p = predictor(z)
    loss = mean over images of  D(p1, z2)/2 + D(p2, z1)/2,   D(p, z) = -cos(p, stop-gradient(z))

Projector: Linear, BatchNorm, ReLU, again, Linear, BatchNorm (the authors' code: the last without scale and shift).
Predictor: Linear to a bottleneck, BatchNorm, ReLU, Linear.

The loss lies in [-1, 1]; at -1 the network may have collapsed to a constant. The gradient that reaches the encoder is
about a tenth of SimCLR's, so a loss added to this one wants about a tenth of the weight it has there.

The paper's learning rate is 0.05 for a batch of 256 (on CIFAR 0.03), falling along a cosine. The authors found it a
little better not to let the predictor's fall (section 4.2); here all parameters share the recipe's schedule, the
paper's plain variant.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.ops import collective
from evensphere.ops.contrast import cosine_of_pairs
from evensphere.ops.schedule import Progress
from evensphere.values import check_whole


class SimSiam(Method):
    """Negative cosine between one view's prediction and the other view's projection.

    embedding_dim: width of the projections (the paper: 2048).
    hidden_dim: of the projector (the paper: 2048). projector_layers: >= 1 (the paper: 3; on CIFAR 2).
    predictor_dim: the predictor's bottleneck (the paper: 512, a quarter of embedding_dim).
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 2048,
        hidden_dim: int = 2048,
        projector_layers: int = 3,
        predictor_dim: int = 512,
    ) -> None:
        super().__init__()
        check_whole("projector_layers", projector_layers, 1, 100)
        features = int(encoder.num_features)  # type: ignore[arg-type]
        hidden = (hidden_dim,) * (projector_layers - 1)
        self.encoder = encoder
        self.projector = mlp((features, *hidden, embedding_dim), last_norm="plain")
        self.predictor = mlp((embedding_dim, predictor_dim, embedding_dim), last_bias=True)
        self.embedding_dim = embedding_dim

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        per_sample = -(cosine_of_pairs(p1, z2.detach()) + cosine_of_pairs(p2, z1.detach())) / 2
        loss = collective.mean(per_sample)
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, per_sample)
