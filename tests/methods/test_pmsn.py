"""PMSN: both terms against loops from the paper, MSN against Lightly, and what a step does to the twin."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.pmsn import PMSN, power_law, prior_divergence
from evensphere.nn.backbone import resnet_small
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.schedule import Progress

PROGRESS = Progress(50, 1, 100)
SIZES = [(2, 2, 4, 3), (2, 5, 6, 7), (3, 3, 9, 20)]  # full views, views, images, prototypes


def make(**options: float | int) -> PMSN:
    torch.manual_seed(0)
    encoder = resnet_small(1, width=4, stages=2)
    return PMSN(encoder, embedding_dim=8, hidden=12, prototypes=10, **options)


def views(local: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(2, 6, 1, 8, 8, generator=generator)
    return (*full, *torch.randn(local, 6, 1, 4, 4, generator=generator))


def softmax(values: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def reference(
    scores: Tensor, targets: Tensor, tau: float, sharpening: float, exponent: float
) -> tuple[list[float], float]:
    """The cross-entropy of each image, and the divergence from the power law, number by number."""
    views, batch, count = scores.shape
    p = [[softmax(scores[w, i].tolist(), tau) for i in range(batch)] for w in range(views)]
    q = [[[x ** (1 / sharpening) for x in softmax(row, tau)] for row in target] for target in targets.tolist()]
    q = [[[x / sum(row) for x in row] for row in target] for target in q]
    cross = []
    for i in range(batch):
        pairs = [(v, w) for v in range(len(q)) for w in range(views) if v != w]
        terms = [-sum(a * math.log(b) for a, b in zip(q[v][i], p[w][i], strict=True)) for v, w in pairs]
        cross.append(sum(terms) / len(terms))
    law = [(k + 1) ** -exponent for k in range(count)]
    divergence = 0.0
    for k in range(count):
        mean = sum(p[w][i][k] for w in range(views) for i in range(batch)) / (views * batch)
        divergence += mean * math.log(mean / (law[k] / sum(law)))
    return cross, divergence


@pytest.mark.parametrize("size", SIZES)
def test_the_terms_equal_the_papers(size: tuple[int, int, int, int]) -> None:
    full, *rest = size
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(rest, dtype=torch.float64, generator=generator) * 2 - 1
    targets = torch.rand(full, *rest[1:], dtype=torch.float64, generator=generator) * 2 - 1
    cross, divergence = reference(scores, targets, 0.1, 0.25, 0.25)
    labels = torch.softmax(targets / 0.025, -1)
    assert cross_view_entropy(scores, labels, 0.1).tolist() == pytest.approx(cross, rel=1e-9)
    ours = prior_divergence(scores, power_law(size[-1], 0.25), 0.1)
    assert ours.item() == pytest.approx(divergence, rel=1e-9)


@pytest.mark.parametrize("size", [(4, 3), (6, 7), (9, 20)])
def test_with_a_uniform_prior_it_equals_lightlys_msn(size: tuple[int, int]) -> None:
    """One target view, one anchor view; Lightly's own PMSN takes the divergence the other way round."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of when it is imported is not ours
        lightly = pytest.importorskip("lightly.loss")
    generator = torch.Generator().manual_seed(0)
    anchors, targets = torch.randn(2, size[0], 5, dtype=torch.float64, generator=generator)
    prototypes = torch.randn(size[1], 5, dtype=torch.float64, generator=generator)
    theirs = lightly.MSNLoss(temperature=0.1, sinkhorn_iterations=0)(anchors, targets, prototypes)
    p, q = (torch.cosine_similarity(z[:, None], prototypes[None], dim=-1) for z in (anchors, targets))
    # the target view is the first, labelled one; it predicts nothing, as there is no other label
    cross = cross_view_entropy(torch.stack([q, p]), torch.softmax(q / 0.025, -1)[None], 0.1).mean()
    divergence = prior_divergence(p[None], power_law(size[1], 0.0), 0.1)
    assert torch.allclose(cross + divergence, theirs, rtol=1e-9)


@pytest.mark.parametrize("local", [0, 3])
def test_the_method_adds_both_terms_of_its_projections(local: int) -> None:
    method = make(temperature=0.2, sharpening=0.5, exponent=0.7, prior_weight=3.0)
    for parameter in method.twin.parameters():
        parameter.mul_(1.1)  # a teacher that is not the student
    output = method(views(local), None, PROGRESS)
    z = [method.projector(method.encoder(view)) for view in views(local)]
    scores, targets = (
        torch.stack([torch.cosine_similarity(each[:, None], method.prototypes, dim=-1) for each in embeddings])
        for embeddings in (z, [method.twin(view) for view in views()])
    )
    cross, divergence = reference(scores.double(), targets.double(), 0.2, 0.5, 0.7)
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(cross, rel=1e-3)
    assert output.logs["prior_divergence"].item() == pytest.approx(divergence, rel=1e-3)
    assert output.loss.item() == pytest.approx(sum(cross) / 6 + 3 * divergence, rel=1e-3)
    assert len(output.embeddings) == 2, "local views are no embeddings"
    assert torch.allclose(torch.stack(output.embeddings), torch.stack(z[:2]))


def test_the_power_law() -> None:
    assert power_law(4, 1.0).tolist() == pytest.approx([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    assert power_law(5, 0.0).tolist() == pytest.approx([0.2] * 5)


def test_predictions_that_follow_the_prior_cost_nothing() -> None:
    prior = power_law(6, 0.5)
    assert abs(prior_divergence(prior.log().expand(2, 3, 6) * 0.1, prior, 0.1)) < 1e-12
    assert prior_divergence(torch.zeros(2, 3, 6, dtype=torch.float64), prior, 0.1) > 0.01


def test_after_a_step_the_twin_has_followed() -> None:
    method = make(twin_momentum=0.9)
    with torch.no_grad():
        next(method.projector.parameters()).add_(1.0)
    before = [parameter.clone() for parameter in method.twin.parameters()]
    output = method(views(), None, PROGRESS)
    method.after_step(None, output, PROGRESS)
    share = 1 - 0.1 * (math.cos(math.pi * 0.5) + 1) / 2  # half-way through the run
    online = [*method.encoder.parameters(), *method.projector.parameters()]
    for old, new, mine in zip(before, method.twin.parameters(), online, strict=True):
        assert torch.allclose(new, share * old + (1 - share) * mine, atol=1e-6)


def test_targets_take_no_gradient() -> None:
    method = make()
    method(views(2), None, PROGRESS).loss.backward()
    assert all(parameter.grad is None for parameter in method.twin.parameters())
    assert method.prototypes.grad is not None
    targets = method.score(torch.stack([method.twin(view) for view in views()]))
    labels = torch.softmax(targets / 0.025, -1).detach()
    z = torch.stack([method.projector(method.encoder(view)) for view in views(2)])
    loss = cross_view_entropy(method.score(z), labels, 0.1).mean()
    loss = loss + prior_divergence(method.score(z), method.prior, 0.1)
    expected = torch.autograd.grad(loss, method.prototypes)[0]
    assert torch.allclose(method.prototypes.grad, expected, atol=1e-6), "labels are constants"


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"sharpening": 0.0}, {"sharpening": 1.5}, {"exponent": -1.0}, {"prior_weight": -1.0}],
)
def test_mistakes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        make(**options)
    with pytest.raises(InputError, match="prototypes"):
        PMSN(resnet_small(1, width=4, stages=2), prototypes=1)
