"""Looks at images that never were: clusters of known sizes on the sphere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.curation.look import Look
from evensphere.data.source import ArraySource


def clusters(sizes: Sequence[int], spread: float = 0.1, dim: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points around as many axes, and which each is near. Clusters are equally wide, so larger ones are denser."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    points = torch.eye(dim)[which] + spread * torch.randn(len(which), dim, generator=generator)
    return normalize(points, dim=1), which


def look_of(features: Tensor, groups: Tensor | None = None, views: tuple[Tensor, Tensor] | None = None) -> Look:
    n = len(features)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    return Look(
        source=ArraySource("made up", pixels),
        index=torch.arange(n),
        locations=[f"made up[{i}]" for i in range(n)],
        features=features,
        views=views or (features, features),
        finite=torch.ones(n, dtype=torch.bool),
        groups=torch.arange(n) if groups is None else groups,
        contrast=np.full(n, 60.0),
        entropy=np.full(n, 4.0),
        aspect=np.full(n, 1.0),
        cut=np.zeros(n),
        made_by="nobody",
    )
