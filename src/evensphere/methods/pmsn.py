"""PMSN (Assran et al., ICLR 2023): clusters whose sizes follow a power law, not equal shares as in most methods.

    prediction   p_w = softmax(cos(z_w, C) / temperature)                  every view w; rows of C: K prototypes
    target       q_v = softmax(cos(t_v, C) / (temperature * sharpening))   full views v through the twin, no gradient
    cross        mean over v and views w other than v of  - sum_k q_vk log p_wk
    prior        KL(mean p || r),  r_k proportional to k^-exponent         mean over views and images of all processes
    twin         <- l twin + (1 - l) (encoder, projector)                  l rises to 1 over the run
    loss         cross + prior_weight * prior

With exponent 0 the prior is uniform and this is MSN (Assran et al., ECCV 2022), whose term log K - H(mean p) is that
divergence. Two things are different from the authors' runs: they also mask patches, which only a ViT can leave out, and
their target is one view more, where here every full view is a target for the others. Their optional Sinkhorn step on
the targets asks for equal shares, against the prior, and is left out.

Lightly's PMSNLoss takes the divergence the other way round, KL(r || mean p); ours continues MSN's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output, split_views
from evensphere.nn.head import mlp
from evensphere.nn.memory import EmaTwin
from evensphere.ops import collective
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Progress
from evensphere.values import check_memory


def power_law(count: int, exponent: float) -> Float[Tensor, " {count}"]:
    """Shares proportional to 1, 2^-exponent, 3^-exponent ..., in float64."""
    shares = torch.arange(1, count + 1, dtype=torch.float64).pow(-exponent)
    return shares / shares.sum()


def prior_divergence(
    scores: Float[Tensor, "views batch k"], prior: Float[Tensor, " k"], temperature: float
) -> Float[Tensor, ""]:
    """KL(mean p || prior), p = softmax(scores / temperature), the mean over views and the images of all processes."""
    with no_autocast(scores):
        p = collective.gather(softmax(real(scores) / temperature, dim=-1).transpose(0, 1)).mean((0, 1))
        negative_entropy: Tensor = -torch.special.entr(p).sum()
        return negative_entropy - (p * prior.to(p).log()).sum()


class PMSN(Method):
    """Prototypes matched to a power law. Takes two or more full views and any number of local ones.

    embedding_dim: width of the projector's output (the paper: 256). hidden: of its two hidden layers (the paper: 2048).
    prototypes: K, >= 2 (the paper: 1024).
    temperature: of the predictions, > 0 (the paper: 0.1). sharpening: of the targets, in (0, 1] (the paper: 0.25).
    exponent: of the power law, >= 0; 0 is MSN (the paper: 0.25).
    prior_weight: >= 0 (the paper: 1).
    twin_momentum: at the start, in [0, 1], rising to 1 (the paper: 0.996; the shorter the run, the lower).
    """

    full_views, local_views = None, True
    prior: Float[Tensor, " k"]

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 256,
        hidden: int = 512,
        prototypes: int = 256,
        temperature: float = 0.1,
        sharpening: float = 0.25,
        exponent: float = 0.25,
        prior_weight: float = 1.0,
        twin_momentum: float = 0.996,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and 0 < sharpening <= 1):
            raise InputError(
                f"temperature = {temperature} and sharpening = {sharpening} were given; "
                "the first must be above 0, the second above 0 and at most 1."
            )
        if not min(exponent, prior_weight) >= 0:
            raise InputError(
                f"exponent = {exponent} and prior_weight = {prior_weight} were given; they must be at least 0."
            )
        if prototypes < 2:
            raise InputError(f"prototypes = {prototypes} was given; PMSN needs at least 2.")
        check_memory(f"{prototypes:,} prototypes of width {embedding_dim:,}", 8.0 * prototypes * embedding_dim)
        self.encoder = encoder
        self.projector = mlp([int(encoder.num_features), hidden, hidden, embedding_dim])  # type: ignore[arg-type]
        self.prototypes = nn.Parameter(torch.randn(prototypes, embedding_dim))
        self.twin = EmaTwin(nn.Sequential(encoder, self.projector), twin_momentum, rising=True)
        self.register_buffer("prior", power_law(prototypes, exponent).float(), persistent=False)
        self.embedding_dim = embedding_dim
        self.temperature, self.sharpening, self.prior_weight = temperature, sharpening, prior_weight

    def forward(
        self, views: Sequence[Float[Tensor, "batch c _ _"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        full, local = split_views(views)
        embeddings = tuple(self.projector(self.encoder(view)) for view in (*full, *local))
        scores = self.score(torch.stack(embeddings))
        targets = self.score(torch.stack([self.twin(view) for view in full])).detach()
        labels = softmax(targets / (self.temperature * self.sharpening), dim=-1)
        per_sample = cross_view_entropy(scores, labels, self.temperature)
        divergence = prior_divergence(scores, self.prior, self.temperature)
        loss = collective.mean(per_sample) + self.prior_weight * divergence
        logs = {"ssl": loss.detach(), "prior_divergence": divergence.detach()}
        return Output(loss, embeddings[: len(full)], logs, per_sample)

    def score(self, embeddings: Float[Tensor, "views batch dim"]) -> Float[Tensor, "views batch k"]:
        """Cosines with the prototypes."""
        with no_autocast(embeddings):
            z = normalize(real(embeddings), dim=-1)
            return z @ normalize(self.prototypes.to(z), dim=1).T

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        """Move the twin towards the network."""
        self.twin.follow(nn.Sequential(self.encoder, self.projector), progress)
