"""MoCo v2 (Chen et al., 2020; MoCo: He et al., CVPR 2020): contrast with the latest images' keys, made by a slow twin.

    q = projector(encoder(view 1)),   k = twin(view 2),   Q = keys of the latest batches
    loss = mean over images of  -log( exp(q.k / t) / (exp(q.k / t) + sum over n in Q of exp(q.n / t)) ),   unit vectors
    twin <- m twin + (1 - m) (encoder, projector);   the batch's keys replace Q's oldest

The projector is v2's: Linear(d, d), ReLU, Linear(d, D), without BatchNorm, and wants a lower learning rate than one
with it: the paper has 0.03 for a batch of 256; the authors on CIFAR 0.06 for 512.

The paper's loss is asymmetric: view 1 asks, view 2 answers, and the online network never sees view 2. A harmonizer
needs the online embeddings of both views with gradient, so here it does, which costs one more pass of the encoder
forward, and backward where there is a harmonizer, and lets BatchNorm's running statistics see both views.

Shuffled BatchNorm: with BatchNorm a query and its key could recognise each other by the statistics of the batch they
share. The authors have each of several processes normalise keys of images that another one's queries come from. One
process makes one batch of all queries and one of all keys, and there is nothing to shuffle between: both batches hold
the same images in any order. What the shuffling guards against is weaker the larger the batch; the negatives, being
from earlier batches, share no statistics with either.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.methods.base import Method, Output
from evensphere.nn.head import mlp
from evensphere.nn.memory import EmaTwin, Queue
from evensphere.ops import collective
from evensphere.ops.contrast import queue_info_nce
from evensphere.ops.schedule import Progress, Temperature


class MoCo(Method):
    """InfoNCE between queries and a momentum twin's keys, against a queue of keys.

    embedding_dim: the projector's output width (the paper: 128).
    queue_size: keys in the queue, >= 1 (the paper: 65536; the authors on CIFAR: 4096). More than there are images makes
        every image a negative of itself.
    momentum: of the twin, 0 to 1 (the paper: 0.999; the authors on CIFAR: 0.99).
    temperature: > 0 (the paper: 0.2; the authors on CIFAR: 0.1), or one that changes over time (ops.schedule).
    symmetric: False, the paper's, asks with view 1; True asks with each view in turn, takes the mean of both losses and
        pushes both views' keys (an option of the authors' CIFAR code, which takes the sum): one more pass of the twin.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: Temperature | str | float = 0.2,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        features = int(encoder.num_features)  # type: ignore[arg-type]
        self.encoder = encoder
        self.projector = mlp((features, features, embedding_dim), last_bias=True, batch_norm=False)
        self.twin = EmaTwin(nn.Sequential(encoder, self.projector), momentum)
        self.queue = Queue(queue_size, embedding_dim)
        self.embedding_dim = embedding_dim
        self.temperature = Temperature.parse(temperature)
        self.symmetric = symmetric

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        q1, q2 = (self.projector(self.encoder(view)) for view in views)
        k2 = self.twin(views[1])
        t = self.temperature(progress)
        per_sample = self._contrast(q1, k2, t)
        keys: tuple[Tensor, ...] = (k2,)
        if self.symmetric:
            k1 = self.twin(views[0])
            per_sample, keys = (per_sample + self._contrast(q2, k1, t)) / 2, (k1, k2)
        loss = collective.mean(per_sample)
        return Output(loss, (q1, q2), {"ssl": loss.detach()}, per_sample, keys)

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        self.twin.follow(nn.Sequential(self.encoder, self.projector), progress)
        for keys in output.carried:  # one view after the other: the same order in one process as in several
            self.queue.push(keys)

    def _contrast(self, queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
        return queue_info_nce(queries, keys, self.queue.contents(keys), temperature)
