"""Losses between two views: against slow loops over the equations, and what they must not depend on."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.ops import contrast
from evensphere.ops.contrast import batch_info_nce, cosine_of_pairs, focal_info_nce, info_nce, queue_info_nce


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


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_pair_that_is_certain_has_a_gradient(gamma: float) -> None:
    z = torch.eye(8, requires_grad=True)
    loss = focal_info_nce(z, torch.eye(8), 0.05, gamma).sum()
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("loss", [info_nce, focal_info_nce])
def test_the_symmetric_form_equals_the_general_one(
    loss: Callable[[Tensor, Tensor, float], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    z1, z2 = (z.requires_grad_() for z in embeddings(13, 6))
    weight = torch.linspace(-1, 2, 13, dtype=torch.float64)  # another gradient for each image
    results = []
    for sharpest in (0.0, torch.inf):
        monkeypatch.setattr(contrast, "_SHARPEST", sharpest)
        losses = loss(z1, z2, 0.3)
        results.append((losses, *torch.autograd.grad(losses @ weight, (z1, z2))))
    for symmetric, general in zip(*results, strict=True):
        assert not torch.equal(symmetric, general)  # they are two ways to the same numbers
        assert torch.allclose(symmetric, general, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("temperature", [0.01, contrast._SHARPEST])
def test_a_low_temperature_leaves_no_row_empty(temperature: float) -> None:
    """One embedding is as far as can be from all others, its partner included."""
    z1 = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    z2 = torch.tensor([[-1.0, 0.0], [-1.0, 1e-3]], requires_grad=True)
    losses = info_nce(z1, z2, temperature)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert z1.grad is not None
    assert z1.grad.isfinite().all()


# --- against a queue, against the batch -------------------------------------------------------------------------------


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


SIZES = [(2, 3, 4, 0.5), (5, 8, 1, 0.2), (9, 4, 23, 0.07)]


@pytest.mark.parametrize(("batch", "dim", "length", "temperature"), SIZES)
def test_the_loss_against_a_queue_equals_the_equation(batch: int, dim: int, length: int, temperature: float) -> None:
    q, k = embeddings(batch, dim)
    negatives = normalize(embeddings(length, dim, seed=1)[0], dim=1)
    expected = []
    for i in range(batch):
        positive = math.exp(cosine(q[i], k[i]) / temperature)
        others = sum(math.exp(cosine(q[i], negative) / temperature) for negative in negatives)
        expected.append(-math.log(positive / (positive + others)))
    assert queue_info_nce(q, k, negatives, temperature).tolist() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("batch", "dim", "length", "temperature"), SIZES)
def test_the_loss_against_the_batch_equals_the_equation(batch: int, dim: int, length: int, temperature: float) -> None:
    q, k = embeddings(batch, dim)
    expected = []
    for i in range(batch):
        shares = [math.exp(cosine(q[i], k[j]) / temperature) for j in range(batch)]
        expected.append(-math.log(shares[i] / sum(shares)))
    assert batch_info_nce(q, k, temperature).tolist() == pytest.approx(expected, rel=1e-10)
    assert cosine_of_pairs(q, k).tolist() == pytest.approx([cosine(*pair) for pair in zip(q, k, strict=True)])


def test_the_loss_against_a_queue_is_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss")
    q, k = (z.float().requires_grad_() for z in embeddings(6, 5))
    criterion = loss.NTXentLoss(temperature=0.2, memory_bank_size=(20, 5))
    negatives = criterion.memory_bank.bank.clone()
    theirs = criterion(q, k.detach())
    assert queue_info_nce(q, k.detach(), negatives, 0.2).mean().item() == pytest.approx(theirs.item(), rel=1e-5)


def test_the_cosine_is_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss")
    p, z = embeddings(6, 5)
    assert -cosine_of_pairs(p, z).mean().item() == pytest.approx(
        loss.NegativeCosineSimilarity()(p, z).item(), rel=1e-10
    )


def test_one_sided_losses_keep_their_precision_under_autocast() -> None:
    q, k = (z.float() for z in embeddings(32, 16))
    negatives = normalize(embeddings(40, 16, seed=1)[0].float(), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = queue_info_nce(q, k, negatives), batch_info_nce(q, k), cosine_of_pairs(q.bfloat16(), k)
    assert torch.equal(inside[0], queue_info_nce(q, k, negatives))
    assert torch.equal(inside[1], batch_info_nce(q, k))
    assert inside[2].dtype == torch.float32


def test_gradients_of_one_sided_losses_are_right() -> None:
    q, k = (z.requires_grad_() for z in embeddings(4, 3))
    negatives = normalize(embeddings(7, 3, seed=1)[0], dim=1)
    assert torch.autograd.gradcheck(lambda a, b: queue_info_nce(a, b, negatives).sum(), (q, k))
    assert torch.autograd.gradcheck(lambda a, b: batch_info_nce(a, b).sum(), (q, k))
