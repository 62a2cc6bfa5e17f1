"""Collapse, of the kinds there are, is found; health is not taken for it."""

from __future__ import annotations

import pytest
import torch
from tests.diagnosis.made_up import cloud, seen

from evensphere.diagnosis.look import Look
from evensphere.diagnosis.space import Room, collapse, room


def healthy(epoch: float, dimensions: float = 15.0, spread: float = 0.98) -> Room:
    return Room(epoch, spread, dimensions, 30.0, 128, embedded=True)


@pytest.mark.parametrize("dimensions", [(11.0, 21.0), (21.0, 11.0), (26.0, 14.0), (11.0,)])
def test_healthy_runs_raise_no_alarm(dimensions: tuple[float, ...]) -> None:
    """The range that all checkpoints of CIFAR-100-LT runs were in."""
    found = collapse([healthy(epoch, one) for epoch, one in enumerate(dimensions)])
    assert found.level == "ok", found.sentence


def test_a_full_sphere_is_health() -> None:
    found = collapse([room(seen(cloud(500), 0.1), 1.0)])
    assert found.level == "ok"
    assert found.numbers["checkpoints"][0]["spread"] == pytest.approx(1.0, abs=0.02)


def test_one_point_is_an_alarm() -> None:
    point = torch.ones(500, 32) + 0.01 * cloud(500)
    found = collapse([room(seen(point, 0.0), 1.0)])
    assert found.level == "alarm"
    assert "one point" in found.sentence
    exactly = Look(torch.arange(50), torch.ones(50, 8))
    assert collapse([room(exactly, 1.0)]).level == "alarm"


def test_two_directions_of_many_are_an_alarm() -> None:
    flat = cloud(500, 2) @ cloud(2, 64, seed=1)
    found = collapse([room(seen(flat, 0.0), 1.0)])
    assert found.level == "alarm"
    assert "of 64 dimensions" in found.sentence


def test_a_network_that_has_hardly_begun_is_no_alarm() -> None:
    flat = cloud(500, 2) @ cloud(2, 64, seed=1)
    found = collapse([room(seen(flat, 0.0), 1.0)], trained=False)
    assert found.level == "warning"
    assert "hardly begun" in found.sentence


def test_two_directions_of_two_are_not() -> None:
    assert collapse([room(Look(torch.arange(500), cloud(500, 2)), 1.0)]).level == "ok"


def test_losing_most_of_what_there_was_is_a_warning() -> None:
    found = collapse([healthy(10, 26.0), healthy(20, 8.0)])
    assert found.level == "warning"
    assert "epoch 10" in found.advice
