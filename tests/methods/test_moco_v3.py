"""MoCo v3: predictions against the twin's projections of the whole batch, both ways.

Lightly has no such loss to compare with: its NTXentLoss without a memory also takes the queries for negatives.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.methods.moco_v3 import MoCoV3
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 10)


def make(**options: object) -> MoCoV3:
    torch.manual_seed(0)
    given = {"embedding_dim": 8, "hidden_dim": 16, "momentum": 0.5} | options
    method = MoCoV3(resnet_small(1, width=4, stages=2), **given)  # type: ignore[arg-type]
    method.double()
    nn.init.normal_(next(method.projector.parameters()))  # away from the twin
    return method


def two_views(batch: int = 6) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("batch", "temperature"), [(3, 1.0), (5, 0.2), (9, 0.07)])
def test_the_loss_is_the_equation(batch: int, temperature: float) -> None:
    method, views = make(temperature=temperature), two_views(batch)
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)).detach() for view in views)
    k1, k2 = (method.twin(view) for view in views)
    assert not torch.allclose(k1, z1, atol=0.1), "the twin is not the network"
    expected = [0.0] * batch
    for queries, keys in ((method.predictor(z1).detach(), k2), (method.predictor(z2).detach(), k1)):
        for i, q in enumerate(queries):
            shares = [math.exp(float(q @ k / (q.norm() * k.norm())) / temperature) for k in keys]
            expected[i] += -2 * temperature * math.log(shares[i] / sum(shares))
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-9)
    assert output.loss.item() == pytest.approx(sum(expected) / batch, rel=1e-9)
    assert torch.equal(torch.stack(output.embeddings), torch.stack([z1, z2])), "before the predictor"


def test_gradients_reach_the_online_network_only() -> None:
    method = make()
    method(two_views(), None, PROGRESS).loss.backward()
    assert all(parameter.grad is None for parameter in method.twin.parameters())
    for module in (method.encoder, method.projector, method.predictor):
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_step_moves_the_twin_by_the_momentum_of_its_time() -> None:
    method = make()
    old = [parameter.clone() for parameter in method.twin.parameters()]
    new = [*method.encoder.parameters(), *method.projector.parameters()]
    output = method(two_views(), None, PROGRESS)
    assert all(torch.equal(a, b) for a, b in zip(old, method.twin.parameters(), strict=True)), "forward moves nothing"
    method.after_step(None, output, Progress(5, 1, 10))  # half-way through the run: m = 1 - 0.5 / 2
    for mine, a, b in zip(method.twin.parameters(), old, new, strict=True):
        assert torch.allclose(mine, 0.75 * a + 0.25 * b)


def test_the_heads_are_those_of_resnets_or_of_vits() -> None:
    resnet, vit = make(), make(projector_layers=3, predictor_norm=True)
    assert [sum(isinstance(layer, nn.Linear) for layer in m.projector) for m in (resnet, vit)] == [2, 3]
    assert isinstance(resnet.predictor[-1], nn.Linear)
    for norm in (resnet.projector[-1], vit.projector[-1], vit.predictor[-1]):
        assert isinstance(norm, nn.BatchNorm1d)
        assert not norm.affine


def test_the_twin_is_saved_and_loaded() -> None:
    method, other = make(), make()
    method.after_step(None, method(two_views(), None, PROGRESS), PROGRESS)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other(two_views(), None, PROGRESS).loss, method(two_views(), None, PROGRESS).loss)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"projector_layers": 0}, {"momentum": 2.0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
