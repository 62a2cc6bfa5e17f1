"""SwAV: swapped prediction against a loop from the paper and against Lightly, multi-crop, and frozen prototypes."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.swav import SwAV
from evensphere.nn.backbone import resnet_small
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.schedule import Progress
from evensphere.ops.sinkhorn import shared_plan

LATER = Progress(20, 10, 100)  # the prototypes are free
FIRST = Progress(9, 10, 100)  # the last step of the first epoch
SIZES = [(2, 2, 4, 3), (2, 5, 6, 7), (3, 3, 9, 20)]  # full views, views, images, prototypes


def make(**options: object) -> SwAV:
    torch.manual_seed(0)
    return SwAV(resnet_small(1, width=4, stages=2), embedding_dim=8, prototypes=5, **options)  # type: ignore[arg-type]


def views(local: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(2, 6, 1, 8, 8, generator=generator)
    return (*full, *torch.randn(local, 6, 1, 4, 4, generator=generator))


def cosines(size: tuple[int, int, int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size[1:], dtype=torch.float64, generator=generator) * 2 - 1


def reference(scores: Tensor, full: int, temperature: float, epsilon: float, iterations: int) -> list[float]:
    """Section 3 of the paper in plain numbers: codes by alternating normalisation, then every swapped pair."""
    _, batch, count = scores.shape
    codes = []
    for v in range(full):
        q = [[math.exp(s / epsilon) for s in row] for row in scores[v].tolist()]
        q = [[x / sum(row) for x in row] for row in q]
        for _ in range(iterations):
            columns = [sum(row[k] for row in q) for k in range(count)]
            q = [[x * batch / (count * columns[k]) for k, x in enumerate(row)] for row in q]
            q = [[x / sum(row) for x in row] for row in q]
        codes.append(q)
    losses = []
    for i in range(batch):
        terms = []
        for v in range(full):
            for w in range(len(scores)):
                if v != w:
                    weights = [math.exp(s / temperature) for s in scores[w, i].tolist()]
                    shares = [x / sum(weights) for x in weights]
                    terms.append(-sum(q * math.log(p) for q, p in zip(codes[v][i], shares, strict=True)))
        losses.append(sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("size", SIZES)
def test_the_loss_equals_the_papers(size: tuple[int, int, int, int]) -> None:
    scores, full = cosines(size), size[0]
    codes = shared_plan(scores[:full], None, 0.05, 3, tolerance=0).assignment
    ours = cross_view_entropy(scores, codes, 0.1)
    assert ours.tolist() == pytest.approx(reference(scores, full, 0.1, 0.05, 3), rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_the_loss_equals_lightlys(size: tuple[int, int, int, int]) -> None:
    """With converged codes: the two start their iterations from different sides of the same fixed point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of when it is imported is not ours
        lightly = pytest.importorskip("lightly.loss")
    scores, full = cosines(size), size[0]
    codes = shared_plan(scores[:full], None, 0.2, 500, tolerance=0).assignment
    theirs = lightly.SwaVLoss(temperature=0.1, sinkhorn_iterations=500, sinkhorn_epsilon=0.2)(
        list(scores[:full]), list(scores[full:])
    )
    assert torch.allclose(cross_view_entropy(scores, codes, 0.1).mean(), theirs, rtol=1e-9)


@pytest.mark.parametrize("local", [0, 3])
def test_the_method_scores_its_projections_against_unit_prototypes(local: int) -> None:
    method = make(temperature=0.3, sinkhorn_temperature=0.2, sinkhorn_iterations=4)
    output = method(views(local), None, LATER)
    z = [method.projector(method.encoder(view)) for view in views(local)]
    scores = torch.stack([torch.cosine_similarity(a[:, None], method.prototypes, dim=-1) for a in z])
    expected = reference(scores.double(), 2, 0.3, 0.2, 4)
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-4)
    assert output.loss.item() == pytest.approx(sum(expected) / 6, rel=1e-4)
    assert len(output.embeddings) == 2, "local views are no embeddings"
    assert torch.allclose(torch.stack(output.embeddings), torch.stack(z[:2]))


def test_a_local_view_learns_from_the_codes_but_has_none() -> None:
    first, second, small = (view.requires_grad_() for view in views(1))
    make()((first, second, small), None, LATER).loss.backward()
    assert small.grad is not None
    assert small.grad.abs().sum() > 0
    codes = shared_plan(torch.rand(2, 6, 5), None, 0.05, 3, tolerance=0).assignment
    a = cross_view_entropy(torch.rand(3, 6, 5), codes, 0.1)
    assert a.shape == (6,)


def test_prototypes_are_frozen_in_the_first_epoch_and_unit_vectors_after_every_step() -> None:
    method = make()
    start = method.prototypes.detach().clone()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.5, momentum=0.9, weight_decay=0.1)
    for progress, moved in ((FIRST, False), (LATER, True)):
        optimizer.zero_grad()
        output = method(views(), None, progress)
        output.loss.backward()
        assert (method.prototypes.grad is not None) == moved
        optimizer.step()
        method.after_step(None, output, progress)
        assert torch.equal(method.prototypes, start) != moved
        assert torch.allclose(method.prototypes.norm(dim=1), torch.ones(5))


def test_codes_share_the_batch_equally() -> None:
    codes = shared_plan(cosines((2, 2, 12, 4)), None, 0.2, 300, tolerance=0).assignment
    assert torch.allclose(codes.mean(1), torch.full((2, 4), 0.25, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"sinkhorn_temperature": -1.0}, {"sinkhorn_iterations": 0}, {"frozen": "a while"}],
)
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
    with pytest.raises(InputError, match="prototypes"):
        SwAV(resnet_small(1, width=4, stages=2), prototypes=1)
