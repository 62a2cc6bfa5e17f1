"""Neighbours of two views: a slow loop, the extremes, chance."""

from __future__ import annotations

import pytest
import torch

from evensphere.metrics.consistency import neighbourhood_consistency, neighbours_to_compare
from evensphere.metrics.density import nearest_neighbours


def points(seed: int, n: int = 200) -> torch.Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_share_of_common_neighbours() -> None:
    first, second = points(0), points(0) + 0.5 * points(1)
    found = neighbourhood_consistency(first, second)
    assert found is not None
    sets = [[set(row) for row in nearest_neighbours(view, 10).index.tolist()] for view in (first, second)]
    slow = [len(a & b) / 10 for a, b in zip(*sets, strict=True)]
    assert found.tolist() == pytest.approx(slow)
    assert 0.2 < float(found.mean()) < 0.9


def test_the_extremes_are_one_and_chance() -> None:
    same = neighbourhood_consistency(points(0), 3 * points(0))
    assert same is not None
    assert bool((same == 1).all())
    unrelated = neighbourhood_consistency(points(0), points(1))
    assert unrelated is not None
    assert float(unrelated.mean()) == pytest.approx(10 / 199, abs=0.02)


def test_few_images_are_asked_for_few_neighbours_and_very_few_for_none() -> None:
    assert [neighbours_to_compare(n) for n in (0, 19, 20, 45, 200, 10_000)] == [0, 0, 1, 2, 10, 10]
    assert neighbourhood_consistency(points(0, 19), points(1, 19)) is None
