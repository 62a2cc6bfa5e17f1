"""SimSiam: each view predicts the other's projection, through which no gradient flows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.methods.simsiam import SimSiam
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 10)


def make(**options: object) -> SimSiam:
    torch.manual_seed(0)
    given = {"embedding_dim": 8, "hidden_dim": 16, "predictor_dim": 4} | options
    method = SimSiam(resnet_small(1, width=4, stages=2), **given)  # type: ignore[arg-type]
    method.double()
    return method


def two_views(batch: int = 6) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("batch", [3, 5, 9])
def test_the_loss_is_the_equation(batch: int) -> None:
    method, views = make(), two_views(batch)
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)).detach() for view in views)
    p1, p2 = method.predictor(z1).detach(), method.predictor(z2).detach()
    expected = []
    for i in range(batch):
        cosines = [float(p @ z / (p.norm() * z.norm())) for p, z in ((p1[i], z2[i]), (p2[i], z1[i]))]
        expected.append(-cosines[0] / 2 - cosines[1] / 2)
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-10)
    assert output.loss.item() == pytest.approx(sum(expected) / batch, rel=1e-10)
    assert torch.equal(torch.stack(output.embeddings), torch.stack([z1, z2])), "before the predictor"


def test_the_loss_is_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss")
    method, views = make(), two_views()
    z1, z2 = (method.projector(method.encoder(view)) for view in views)
    criterion = loss.NegativeCosineSimilarity()
    theirs = 0.5 * (criterion(method.predictor(z1), z2) + criterion(method.predictor(z2), z1))
    assert method(views, None, PROGRESS).loss.item() == pytest.approx(theirs.item(), rel=1e-10)


def test_no_gradient_flows_through_the_target() -> None:
    """With a predictor that gives out a constant, the projection is the target only, and gets no gradient at all."""
    method = make()
    last = method.predictor[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    output = method(two_views(), None, PROGRESS)
    gradients = torch.autograd.grad(output.loss, output.embeddings, retain_graph=True)
    assert all(gradient.abs().max() == 0 for gradient in gradients)
    assert output.embeddings[0].sum().requires_grad, "a harmonizer's gradient still flows through the projection"
    (slope,) = torch.autograd.grad(output.loss, [last.bias])
    assert slope.abs().max() > 0


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_projector_ends_in_a_plain_batch_norm(layers: int) -> None:
    projector = make(projector_layers=layers).projector
    assert sum(isinstance(layer, nn.Linear) for layer in projector) == layers
    assert sum(isinstance(layer, nn.BatchNorm1d) for layer in projector) == layers
    assert isinstance(projector[-1], nn.BatchNorm1d)
    assert not projector[-1].affine


@pytest.mark.parametrize("options", [{"projector_layers": 0}, {"predictor_dim": 0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
