"""NNCLR: neighbours from the queue predict, the queue holds earlier first views.

Lightly's loss for it is another one: NTXentLoss takes the other neighbours and predictions of both sides for negatives.
Its search for the nearest neighbour is compared below.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.nnclr import NNCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 10)


def make(**options: object) -> NNCLR:
    torch.manual_seed(0)
    given = {"embedding_dim": 4, "hidden_dim": 16, "predictor_dim": 16, "queue_size": 13} | options
    method = NNCLR(resnet_small(1, width=4, stages=2), **given)  # type: ignore[arg-type]
    method.double()
    return method


def two_views(batch: int = 6) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


def nearest(z: Tensor, queue: Tensor) -> Tensor:
    """The vector of the queue at the smallest distance, as the paper says it."""
    distances = [float((z / z.norm() - other).norm()) for other in queue]
    return queue[distances.index(min(distances))]


@pytest.mark.parametrize(("batch", "queue_size", "temperature"), [(3, 40, 0.5), (5, 13, 0.1), (9, 5, 0.07)])
def test_the_loss_is_the_equation(batch: int, queue_size: int, temperature: float) -> None:
    method, views = make(queue_size=queue_size, temperature=temperature), two_views(batch)
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)).detach() for view in views)
    queue = method.queue.rows.double()
    expected = [0.0] * batch
    for projections, predictions in ((z1, method.predictor(z2).detach()), (z2, method.predictor(z1).detach())):
        for i, z in enumerate(projections):
            n = nearest(z, queue)
            shares = [math.exp(float(n @ p / p.norm()) / temperature) for p in predictions]
            expected[i] += -math.log(shares[i] / sum(shares)) / 2
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-5)  # the queue is float32
    assert output.loss.item() == pytest.approx(sum(expected) / batch, rel=1e-5)
    assert torch.equal(torch.stack(output.embeddings), torch.stack([z1, z2])), "before the predictor"


def test_the_nearest_neighbour_is_lightlys() -> None:
    modules = pytest.importorskip("lightly.models.modules")
    method, z = make(queue_size=50), torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    bank = modules.NNMemoryBankModule(size=(50, 4))
    bank.bank = method.queue.rows
    assert torch.equal(method._nearest(z), bank(z))


def test_a_step_queues_the_first_view_and_forward_queues_nothing() -> None:
    method = make()
    rows = method.queue.rows.clone()
    output = method(two_views(), None, PROGRESS)
    output.loss.backward()
    assert torch.equal(method.queue.rows, rows)
    method.after_step(None, output, PROGRESS)
    pushed = torch.nn.functional.normalize(output.embeddings[0].detach(), dim=1).float()
    assert torch.allclose(method.queue.rows[:6], pushed, atol=1e-6)
    assert torch.equal(method.queue.rows[6:], rows[6:])
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_the_queue_is_saved_and_loaded() -> None:
    method, other = make(), make()
    method.after_step(None, method(two_views(), None, PROGRESS), PROGRESS)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other(two_views(), None, PROGRESS).loss, method(two_views(), None, PROGRESS).loss)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"queue_size": 0}, {"predictor_dim": 0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
