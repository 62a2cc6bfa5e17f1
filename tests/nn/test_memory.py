"""The twin follows and the queue forgets, exactly as said."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.nn.memory import EmaTwin, Queue
from evensphere.ops.schedule import Progress


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def images(count: int = 5) -> Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))


# --- the twin ---------------------------------------------------------------------------------------------------------


def test_the_twin_starts_equal_and_takes_no_gradient() -> None:
    online = network()
    twin = EmaTwin(online, 0.9)
    assert torch.equal(twin(images()), online(images()))
    assert not twin(images()).requires_grad
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert all(parameter.requires_grad for parameter in online.parameters()), "the network still learns"
    assert not {id(p) for p in online.parameters()} & {id(p) for p in twin.parameters()}


def test_the_twin_is_a_moving_average() -> None:
    online = network()
    twin = EmaTwin(online, 0.75)
    expected = [parameter.detach().clone() for parameter in online.parameters()]
    for step in range(3):
        with torch.no_grad():
            for parameter in online.parameters():
                parameter.add_(torch.full_like(parameter, step + 1.0))
        twin.follow(online, Progress(step, 1, 3))
        expected = [0.75 * old + 0.25 * new for old, new in zip(expected, online.parameters(), strict=True)]
        for mine, average in zip(twin.parameters(), expected, strict=True):
            assert torch.allclose(mine, average)


def test_batch_norm_statistics_are_the_twins_own() -> None:
    online = network()
    twin = EmaTwin(online, 0.5)
    mean = twin.state_dict()["network.1.running_mean"]
    online(images())
    twin.follow(online, Progress(0))
    assert torch.equal(mean, torch.zeros(4)), "following copies no statistics"
    twin(images() + 10)
    assert mean.abs().min() > 0, "they move with the batches that the twin sees"


def test_a_rising_momentum_ends_at_one_along_a_cosine() -> None:
    twin = EmaTwin(network(), 0.9, rising=True)
    for step in (0, 1, 7, 19):
        expected = 1 - (1 - 0.9) * (math.cos(math.pi * step / 20) + 1) / 2
        assert twin.momentum_at(Progress(step, 4, 20)) == pytest.approx(expected, rel=1e-12)
    assert twin.momentum_at(Progress(0, 4, 20)) == pytest.approx(0.9)
    assert twin.momentum_at(Progress(20, 4, 20)) == 1
    assert twin.momentum_at(Progress(7)) == 0.9, "where nobody knows the length of the run"
    assert EmaTwin(network(), 0.9).momentum_at(Progress(19, 4, 20)) == 0.9


def test_the_optimizer_leaves_the_twin_alone() -> None:
    """Weight decay shrinks every parameter an optimiser steps; the twin is among them, but has no gradient."""
    online = network()
    both = nn.ModuleList([online, EmaTwin(online, 0.9)])
    before = [parameter.clone() for parameter in both[1].parameters()]
    optimizer = torch.optim.SGD(both.parameters(), lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(2):
        online(images()).square().sum().backward()
        optimizer.step()
    assert all(torch.equal(old, new) for old, new in zip(before, both[1].parameters(), strict=True))


@pytest.mark.parametrize("momentum", [-0.1, 1.1, math.nan])
def test_an_impossible_momentum_is_refused(momentum: float) -> None:
    with pytest.raises(InputError, match="momentum"):
        EmaTwin(network(), momentum)


# --- the queue --------------------------------------------------------------------------------------------------------


def numbered(first: int, count: int) -> Tensor:
    """Vectors that can be told apart once they have unit length: angles."""
    angles = torch.arange(first, first + count) * 0.01
    return 3 * torch.stack([angles.cos(), angles.sin()], dim=1)


def angles(rows: Tensor) -> list[int]:
    return sorted(round(float(angle) / 0.01) for angle in torch.atan2(rows[:, 1], rows[:, 0]))


def test_a_new_queue_holds_random_directions() -> None:
    queue = Queue(500, 8)
    assert torch.allclose(queue.rows.norm(dim=1), torch.ones(500))
    assert queue.rows.mean(0).norm() < 0.2, "on all sides"
    torch.manual_seed(5)
    assert torch.equal(Queue(500, 8).rows, queue.rows), "the same on every process"


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 9), batches=st.lists(st.integers(1, 22), min_size=1, max_size=6))
def test_the_queue_keeps_the_latest(length: int, batches: list[int]) -> None:
    queue, pushed = Queue(length, 2), 0
    start = queue.rows.clone()
    for count in batches:
        queue.push(numbered(pushed, count))
        pushed += count
    kept = min(length, pushed)
    rows = queue.contents(torch.zeros(1, 2))
    new = [i for i in range(length) if not torch.equal(rows[i], start[i])]
    assert len(new) == kept
    assert angles(rows[new]) == list(range(pushed - kept, pushed))
    assert angles(queue.pushed(torch.zeros(1, 2))) == list(range(pushed - kept, pushed))
    assert torch.allclose(rows.norm(dim=1), torch.ones(length))


def test_one_batch_equals_its_images_one_by_one() -> None:
    whole, single = Queue(7, 2), Queue(7, 2)
    whole.push(numbered(0, 17))
    for i in range(17):
        single.push(numbered(i, 1))
    assert torch.equal(whole.rows, single.rows)
    assert whole.next == single.next


def test_the_queue_is_state_but_no_buffer() -> None:
    queue, other = Queue(7, 2), Queue(7, 2)
    queue.push(numbered(0, 4).requires_grad_())
    assert not queue.rows.requires_grad
    assert not list(queue.buffers())
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(numbered(4, 5))
    assert torch.equal(other.rows, queue.rows)
    assert other.next == queue.next == 2
    queue.push(numbered(9, 1))
    assert not torch.equal(other.rows, queue.rows), "the two share no memory"
    assert torch.equal(copy.deepcopy(queue).rows, queue.rows)


def test_half_precision_vectors_are_kept_in_single_precision() -> None:
    queue = Queue(4, 2)
    queue.push(numbered(1, 2).bfloat16())
    assert queue.rows.dtype == torch.float32
    assert torch.allclose(queue.rows[:2], normalize(numbered(1, 2).bfloat16().float(), dim=1))


def test_an_empty_queue_is_refused() -> None:
    with pytest.raises(InputError, match="queue"):
        Queue(0, 2)
