"""MoCo v2: queries against a twin's keys and a queue of earlier ones; nothing moves before the step was taken."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.moco import MoCo
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 10)


def make(batch: int = 6, **options: object) -> MoCo:
    """A method in float64 whose twin and queue have moved away from where they began."""
    torch.manual_seed(0)
    given = {"embedding_dim": 8, "queue_size": 9, "momentum": 0.5} | options
    method = MoCo(resnet_small(1, width=4, stages=2), **given)  # type: ignore[arg-type]
    method.double()
    torch.nn.init.normal_(next(method.projector.parameters()))
    output = method(two_views(batch, seed=5), None, PROGRESS)
    method.after_step(None, output, PROGRESS)
    return method


def two_views(batch: int = 6, seed: int = 1) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def slow_loss(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> float:
    """The equation for one image. The queue's vectors have unit length, in float32."""

    def similarity(other: Tensor) -> float:
        return math.exp(float(query @ other / query.norm()) / temperature)

    positive = similarity(key / key.norm())
    return -math.log(positive / (positive + sum(similarity(other) for other in queue)))


@pytest.mark.parametrize(("batch", "queue_size", "temperature"), [(2, 5, 0.5), (6, 9, 0.2), (5, 1, 0.07)])
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_the_equation(batch: int, queue_size: int, temperature: float, symmetric: bool) -> None:
    method = make(batch, queue_size=queue_size, temperature=temperature, symmetric=symmetric)
    views = two_views(batch)
    output = method(views, None, PROGRESS)
    q1, q2 = (method.projector(method.encoder(view)).detach() for view in views)
    k1, k2 = (method.twin(view) for view in views)
    assert not torch.allclose(k2, q2, atol=0.1), "the twin is not the network"
    queue = method.queue.rows.double()
    expected = [slow_loss(q1[i], k2[i], queue, temperature) for i in range(batch)]
    if symmetric:
        expected = [(loss + slow_loss(q2[i], k1[i], queue, temperature)) / 2 for i, loss in enumerate(expected)]
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-10)
    assert output.loss.item() == pytest.approx(sum(expected) / batch, rel=1e-10)
    assert all(torch.equal(z, q) for z, q in zip(output.embeddings, (q1, q2), strict=True)), "online, not the twin's"
    keys = (k1, k2) if symmetric else (k2,)
    assert all(torch.equal(ours, key) for ours, key in zip(output.carried, keys, strict=True))


def test_the_loss_is_lightlys() -> None:
    loss = pytest.importorskip("lightly.loss")
    method, views = make(), two_views()
    criterion = loss.NTXentLoss(temperature=0.2, memory_bank_size=(9, 8))
    criterion.memory_bank.bank = method.queue.rows.double()
    theirs = criterion(method.projector(method.encoder(views[0])), method.twin(views[1]))
    assert method(views, None, PROGRESS).loss.item() == pytest.approx(theirs.item(), rel=1e-10)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_step_moves_the_twin_and_queues_the_keys(symmetric: bool) -> None:
    method = make(symmetric=symmetric, queue_size=20)
    first = method.queue.next
    output = method(two_views(), None, PROGRESS)
    rows = method.queue.rows.clone()
    keys = torch.cat(output.carried)
    expected = [
        0.5 * old + 0.5 * new
        for old, new in zip(
            method.twin.parameters(), [*method.encoder.parameters(), *method.projector.parameters()], strict=True
        )
    ]
    method.after_step(None, output, PROGRESS)
    for mine, average in zip(method.twin.parameters(), expected, strict=True):
        assert torch.allclose(mine, average)
    place = [(first + i) % 20 for i in range(len(keys))]
    pushed = torch.nn.functional.normalize(keys, dim=1).float()
    assert torch.allclose(method.queue.rows[place], pushed, atol=1e-6)
    others = [i for i in range(20) if i not in place]
    assert torch.equal(method.queue.rows[others], rows[others])


def test_forward_moves_neither() -> None:
    method = make()
    before = [parameter.clone() for parameter in method.twin.parameters()], method.queue.rows.clone(), method.queue.next
    method(two_views(), None, PROGRESS).loss.backward()
    assert all(torch.equal(old, new) for old, new in zip(before[0], method.twin.parameters(), strict=True))
    assert torch.equal(before[1], method.queue.rows)
    assert before[2] == method.queue.next
    assert all(parameter.grad is None for parameter in method.twin.parameters())


def test_twin_and_queue_are_saved_and_loaded() -> None:
    method, other = make(), make(batch=4)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.queue.rows, method.queue.rows)
    for each in (method, other):
        each.after_step(None, each(two_views(), None, PROGRESS), PROGRESS)
    assert torch.equal(other(two_views(), None, PROGRESS).loss, method(two_views(), None, PROGRESS).loss)


def test_the_projector_has_no_batch_norm() -> None:
    assert [type(layer).__name__ for layer in make().projector] == ["Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"momentum": 1.5}, {"queue_size": 0}, {"embedding_dim": 0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)  # type: ignore[arg-type]
