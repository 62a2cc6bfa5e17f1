"""A method of your own, without touching the package: alignment and uniformity (Wang & Isola, ICML 2020).

    loss = mean |z1 - z2|^2 + weight * mean over views of log mean_{i != j} exp(-2 |z_i - z_j|^2),   |z| = 1

evensphere train digits-lt --set method=own_method:AlignmentUniformity --set method.weight=1.0   (with GH on top)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output
from evensphere.nn.head import projector
from evensphere.ops.schedule import Progress


class AlignmentUniformity(Method):
    """weight: of the uniformity term, >= 0. embedding_dim: the projector's output width."""

    def __init__(self, encoder: nn.Module, embedding_dim: int = 128, weight: float = 1.0) -> None:
        super().__init__()
        if not weight >= 0:
            raise InputError(f"weight = {weight} was given; it must be at least 0.")
        self.encoder = encoder
        self.projector = projector(int(encoder.num_features), embedding_dim)  # type: ignore[arg-type]
        self.embedding_dim, self.weight = embedding_dim, weight

    def forward(self, views: tuple[Tensor, ...], index: Tensor | None, progress: Progress) -> Output:
        z1, z2 = (self.projector(self.encoder(view)) for view in views)
        u1, u2 = (normalize(z.float(), dim=1) for z in (z1, z2))
        alignment = (u1 - u2).square().sum(1)
        loss = alignment.mean() + self.weight * (uniformity(u1) + uniformity(u2)) / 2
        # the harmonizer takes it from here: it needs nothing but the projector's outputs
        return Output(loss, (z1, z2), {"ssl": loss.detach()}, alignment)


def uniformity(u: Tensor) -> Tensor:
    """log of the mean potential between different points: 0 if all are one point, lower the more evenly they spread."""
    distances = (2 - 2 * u @ u.T)[~torch.eye(len(u), dtype=torch.bool, device=u.device)]
    return torch.exp(-2 * distances).mean().log()
