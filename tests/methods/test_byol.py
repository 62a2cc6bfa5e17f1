"""BYOL: predictions of a twin's projections, which gradients do not reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.byol import BYOL
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 10)


def make(**options: object) -> BYOL:
    torch.manual_seed(0)
    given = {"embedding_dim": 8, "hidden_dim": 16, "momentum": 0.5} | options
    method = BYOL(resnet_small(1, width=4, stages=2), **given)  # type: ignore[arg-type]
    method.double()
    torch.nn.init.normal_(next(method.projector.parameters()))  # away from the twin
    return method


def two_views(batch: int = 6) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("batch", [2, 5, 9])
def test_the_loss_is_the_equation(batch: int) -> None:
    method, views = make(), two_views(batch)
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)).detach() for view in views)
    p1, p2 = method.predictor(z1).detach(), method.predictor(z2).detach()
    t1, t2 = (method.twin(view) for view in views)
    assert not torch.allclose(t1, z1, atol=0.1), "the twin is not the network"
    expected = []
    for i in range(batch):
        loss = 0.0
        for p, t in ((p1[i], t2[i]), (p2[i], t1[i])):
            loss += sum(float(a / p.norm() - b / t.norm()) ** 2 for a, b in zip(p, t, strict=True))
        expected.append(loss)
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-10)
    assert output.loss.item() == pytest.approx(sum(expected) / batch, rel=1e-10)
    assert torch.equal(torch.stack(output.embeddings), torch.stack([z1, z2])), "before the predictor"


def test_the_loss_is_lightlys() -> None:
    """Lightly's example takes half the sum of the two negative cosines: ours without the constant, times 1/4."""
    loss = pytest.importorskip("lightly.loss")
    method, views = make(), two_views()
    p1, p2 = (method.predictor(method.projector(method.encoder(view))) for view in views)
    t1, t2 = (method.twin(view) for view in views)
    criterion = loss.NegativeCosineSimilarity()
    theirs = 0.5 * (criterion(p1, t2) + criterion(p2, t1))
    assert method(views, None, PROGRESS).loss.item() == pytest.approx(4 + 4 * theirs.item(), rel=1e-10)


def test_gradients_reach_the_online_network_only() -> None:
    method = make()
    method(two_views(), None, PROGRESS).loss.backward()
    assert all(parameter.grad is None for parameter in method.twin.parameters())
    for module in (method.encoder, method.projector, method.predictor):
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_step_moves_the_twin_by_the_momentum_of_its_time() -> None:
    method = make()
    output = method(two_views(), None, PROGRESS)
    old = [parameter.clone() for parameter in method.twin.parameters()]
    new = [*method.encoder.parameters(), *method.projector.parameters()]
    method(two_views(), None, PROGRESS)
    assert all(torch.equal(a, b) for a, b in zip(old, method.twin.parameters(), strict=True)), "forward moves nothing"
    method.after_step(None, output, Progress(5, 1, 10))  # half-way through the run: m = 1 - 0.5 / 2
    for mine, a, b in zip(method.twin.parameters(), old, new, strict=True):
        assert torch.allclose(mine, 0.75 * a + 0.25 * b)


def test_the_twin_is_saved_and_loaded() -> None:
    method, other = make(), make(momentum=0.9)
    method.after_step(None, method(two_views(), None, PROGRESS), PROGRESS)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other(two_views(), None, PROGRESS).loss, method(two_views(), None, PROGRESS).loss)


@pytest.mark.parametrize("options", [{"momentum": -0.1}, {"hidden_dim": 0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
