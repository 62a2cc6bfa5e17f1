"""One network from several frozen ones: the last stage of DnC (Tian et al., "Divide and Contrast", ICCV 2021, 3.3).

For a view x of an image that is expert k's, of K:

    L(x) = 1/2 |r_b(z) - z_b|^2 + 1/2 |r_k(z) - z_k|^2,      z = projector(encoder(x))                     (equation 2)

z_b and z_k are what the base and the k-th expert make of the same view with their encoders and projectors, scaled to
unit length. r_b, r_1 ... r_K are regressors, one for each teacher, of the projector's shape without its last BatchNorm;
their outputs are not normalised (table 19). The loss of an image is the mean over its views (the paper: two).

What the paper leaves open:
* The teachers are in evaluation mode, so that they are functions of the view alone.
* Every regressor sees the whole batch, so that its BatchNorm does not depend on how many images of its expert's there
  are; each image's own is picked afterwards.
* The network is initialised like any other, the regressors' last layers with 0, so that every distance begins at 1. By
  torch's default the outputs begin with a length of about 5; SGD shrinks them at once, and the encoder then learns next
  to nothing. The paper trains with LARS, whose steps are in proportion to each layer's size. (Digits, 120 steps from a
  base of kNN 89 %: 62 % by the default, 91 % from 0.)

Lightly has nothing like it to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output, split_views
from evensphere.nn.head import mlp, projector
from evensphere.ops import collective
from evensphere.ops.precision import real
from evensphere.ops.schedule import Progress
from evensphere.ops.transfer import send


class Distillation(Method):
    """A base's and K experts' embeddings, regressed from one embedding.

    teachers: the base and the experts, K + 1 >= 2 networks from images to embeddings of width `embedding_dim`. They are
        frozen here. They never change, so they are no part of the state: who builds the method brings them.
    owner: [N], which expert's each image is, from 0 to K - 1.
    """

    needs = frozenset({"index"})
    full_views = None

    def __init__(
        self,
        encoder: nn.Module,
        teachers: Sequence[nn.Module],
        owner: Int64[Tensor, " n"],
        embedding_dim: int = 128,
    ) -> None:
        super().__init__()
        experts = len(teachers) - 1
        if experts < 1:
            raise InputError(f"{len(teachers)} teacher was given; distillation needs a base and one expert at least.")
        if len(owner) == 0 or not 0 <= int(owner.min()) <= int(owner.max()) < experts:
            raise InputError(f"Every image must belong to one of the {experts} experts, counted from 0.")
        features = int(encoder.num_features)  # type: ignore[arg-type]
        self.encoder, self.projector = encoder, projector(features, embedding_dim)
        self.regressors = nn.ModuleList(
            mlp((embedding_dim, features, embedding_dim), last_bias=True) for _ in range(experts + 1)
        )
        for regressor in self.regressors:
            last: nn.Linear = regressor[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        # in a tuple they are no children: not in the state, not in training mode, not trained
        self._teachers = tuple(teacher.eval().requires_grad_(False) for teacher in teachers)
        self.owner, self.embedding_dim = owner, embedding_dim

    def forward(
        self, views: Sequence[Float[Tensor, "batch c _ _"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        if index is None:
            raise InputError("Distillation needs to know which expert an image belongs to, so it takes no stream.")
        full, _ = split_views(views)
        owner = self.owner[index.cpu()]  # on the CPU, where counting each expert's images makes no GPU wait
        embeddings = tuple(self.projector(self.encoder(view)) for view in full)
        errors = [self.errors(z, view, owner) for z, view in zip(embeddings, full, strict=True)]
        base, expert = torch.stack(errors).mean(0)
        per_sample = (base + expert) / 2
        loss = collective.mean(per_sample)
        logs = {
            "ssl": loss,
            "distil_base": collective.mean(base.detach()),
            "distil_expert": collective.mean(expert.detach()),
        }
        return Output(loss, embeddings, {name: value.detach() for name, value in logs.items()}, per_sample)

    def errors(
        self, z: Float[Tensor, "batch dim"], view: Float[Tensor, "batch c h w"], owner: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "2 batch"]:
        """Squared distances to what the base and each image's expert make of the view."""
        to_base, *to_experts = (real(regressor(z)) for regressor in self.regressors)
        own = send(owner, z.device)
        to_own = torch.stack(to_experts)[own, torch.arange(len(own), device=z.device)]
        base, expert = self.targets(view, owner)
        return torch.stack([(to_base - base).square().sum(1), (to_own - expert).square().sum(1)])

    @torch.no_grad()
    def targets(
        self, view: Float[Tensor, "batch c h w"], owner: Int64[Tensor, " batch"]
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch dim"]]:
        """z_b and z_k, of unit length. An expert is asked about the images of its own part only."""
        of_all, *of_own = self._teachers
        base = normalize(real(of_all(view)), dim=1)
        expert = torch.empty_like(base)
        for k in owner.unique().tolist():
            rows = send((owner == k).nonzero()[:, 0], view.device)
            expert[rows] = normalize(real(of_own[k](view[rows])), dim=1)
        return base, expert

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distillation:
        """What moves the method to a device or a precision moves the teachers too."""
        for teacher in self._teachers:
            teacher._apply(fn)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self
