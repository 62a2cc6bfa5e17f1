"""SwAV (Caron et al., NeurIPS 2020): each view predicts the cluster that the other views of the image were given.

    scores       s_v = C z_v / |z_v|     z_v: the projector's output of view v; rows of C: prototypes, of unit length
    codes        q_v = transport plan of s_v with equal shares for all prototypes (ops.sinkhorn), no gradient
    predictions  p_v = softmax(s_v / temperature)
    loss         mean over full views v and all views w other than v of   - sum over prototypes of q_v log p_w

Codes are made of full views only, over the batch of all processes; local views only predict. The authors normalise
columns and rows three times; so does `shared_plan`, which starts from scores whose rows are normalised already, so
its codes are a little closer to the converged ones. Their queue of earlier embeddings, for batches much smaller than
the number of prototypes, is left out: choose fewer prototypes than there are images in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output, split_views
from evensphere.nn.head import mlp
from evensphere.ops import collective
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Duration, Progress
from evensphere.ops.sinkhorn import shared_plan
from evensphere.values import check_memory, check_whole


class SwAV(Method):
    """Online clustering with swapped predictions. Takes two or more full views and any number of local ones.

    With plain SGD it wants a smaller learning rate than SimCLR, about a tenth; the authors use LARS.

    embedding_dim: width of the projector's output (the paper: 128). hidden: of its hidden layer; None takes the
        encoder's width (the paper: 2048, ResNet-50's).
    prototypes: >= 2, at best several to a kind of image, but fewer than there are images in a batch (the paper: 3000
        for batches of 4096).
    temperature: of the predictions, > 0 (the paper: 0.1).
    sinkhorn_temperature, sinkhorn_iterations: of the codes (the paper: 0.05 and 3).
    frozen: how long the prototypes stay as they are at the start (the authors' code: one epoch).
    """

    full_views, local_views = None, True

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        hidden: int | None = None,
        prototypes: int = 100,
        temperature: float = 0.1,
        sinkhorn_temperature: float = 0.05,
        sinkhorn_iterations: int = 3,
        frozen: Duration | str | float = "1 epoch",
    ) -> None:
        super().__init__()
        given: dict[str, Any] = {"temperature": temperature, "sinkhorn_temperature": sinkhorn_temperature}
        for name, value in given.items():
            if not value > 0:
                raise InputError(f"{name} = {value} was given; it must be above 0.")
        if prototypes < 2 or sinkhorn_iterations < 1:
            raise InputError(
                f"{prototypes} prototypes and {sinkhorn_iterations} Sinkhorn iterations were given; "
                "SwAV needs at least 2 and 1."
            )
        check_whole("sinkhorn_iterations", sinkhorn_iterations, 1, 1_000_000)
        check_memory(f"{prototypes:,} prototypes of width {embedding_dim:,}", 8.0 * prototypes * embedding_dim)
        features = int(encoder.num_features)  # type: ignore[arg-type]
        self.encoder = encoder
        self.projector = mlp([features, hidden or features, embedding_dim], last_bias=True)
        self.prototypes = nn.Parameter(normalize(torch.randn(prototypes, embedding_dim), dim=1))
        self.embedding_dim = embedding_dim
        self.temperature = temperature
        self.sinkhorn_temperature, self.sinkhorn_iterations = sinkhorn_temperature, sinkhorn_iterations
        self.frozen = Duration.parse(frozen)

    def forward(
        self, views: Sequence[Float[Tensor, "batch c _ _"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        full, local = split_views(views)
        embeddings = tuple(self.projector(self.encoder(view)) for view in (*full, *local))
        scores = self.score(torch.stack(embeddings), progress)
        plan = shared_plan(scores[: len(full)], None, self.sinkhorn_temperature, self.sinkhorn_iterations, tolerance=0)
        per_sample = cross_view_entropy(scores, plan.assignment, self.temperature)
        loss = collective.mean(per_sample)
        return Output(loss, embeddings[: len(full)], {"ssl": loss.detach()}, per_sample)

    def score(self, embeddings: Float[Tensor, "views batch dim"], progress: Progress) -> Float[Tensor, "views batch k"]:
        """Cosines with the prototypes, which take no gradient while they are frozen."""
        prototypes = self.prototypes.detach() if self.is_frozen(progress) else self.prototypes
        with no_autocast(embeddings):
            z = normalize(real(embeddings), dim=-1)
            return z @ prototypes.to(z).T

    @torch.no_grad()
    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        """Bring the prototypes back to unit length, which the step took them from."""
        if not self.is_frozen(progress):
            self.prototypes.copy_(normalize(self.prototypes, dim=1))

    def is_frozen(self, progress: Progress) -> bool:
        """Whether the prototypes stay as they are at this step."""
        return progress.step < self.frozen.steps(progress)
