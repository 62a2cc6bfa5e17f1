"""NT-Xent and focal: against slow loops over the equations, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evensphere.ops.contrast import focal_info_nce, info_nce


def embeddings(batch: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, batch, dim, dtype=torch.float64, generator=generator)
    return z[0], z[1]


def slow_shares(z1: Tensor, z2: Tensor, temperature: float) -> list[list[float]]:
    """pos / (pos + negatives) of both views of each image, from the equation, one pair at a time."""
    views = [*z1, *z2]
    batch = len(z1)

    def similarity(i: int, j: int) -> float:
        cosine = float(views[i] @ views[j] / (views[i].norm() * views[j].norm()))
        return math.exp(cosine / temperature)

    shares = []
    for i in range(batch):
        both = []
        for here, there in ((i, i + batch), (i + batch, i)):
            positive = similarity(here, there)
            negatives = sum(similarity(here, other) for other in range(2 * batch) if other not in (here, there))
            both.append(positive / (positive + negatives))
        shares.append(both)
    return shares


@pytest.mark.parametrize(("batch", "dim", "temperature"), [(2, 3, 0.5), (5, 8, 0.2), (9, 4, 0.07)])
def test_equals_the_equation(batch: int, dim: int, temperature: float) -> None:
    z1, z2 = embeddings(batch, dim)
    shares = slow_shares(z1, z2, temperature)
    expected = [sum(-math.log(p) for p in both) / 2 for both in shares]
    assert info_nce(z1, z2, temperature).tolist() == pytest.approx(expected, rel=1e-10)
    expected = [sum(-((1 - p) ** 2) * math.log(p) for p in both) / 2 for both in shares]
    assert focal_info_nce(z1, z2, temperature, gamma=2.0).tolist() == pytest.approx(expected, rel=1e-10)


def test_permuting_the_batch_permutes_the_losses() -> None:
    z1, z2 = embeddings(12, 5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    assert torch.allclose(info_nce(z1[order], z2[order]), info_nce(z1, z2)[order], atol=1e-14)


def test_length_and_order_of_the_views_do_not_matter() -> None:
    z1, z2 = embeddings(6, 5)
    assert torch.allclose(info_nce(3 * z1, 0.1 * z2), info_nce(z1, z2))
    assert torch.allclose(info_nce(z2, z1), info_nce(z1, z2))


def test_autocast_does_not_lower_the_precision() -> None:
    z1, z2 = (z.float() for z in embeddings(32, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(z1, z2)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, info_nce(z1, z2))


def test_gradients_are_right() -> None:
    z1, z2 = (z.requires_grad_() for z in embeddings(4, 3))
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b).sum(), (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: focal_info_nce(a, b).sum(), (z1, z2))
