"""The anchors: as far from each other as any directions can be."""

from __future__ import annotations

import pytest
import torch

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform, largest_cosine


@pytest.mark.parametrize(("num_anchors", "dim"), [(2, 1), (2, 128), (3, 2), (10, 32), (100, 128), (129, 128), (65, 64)])
def test_up_to_one_more_than_the_width_it_is_a_simplex(num_anchors: int, dim: int) -> None:
    anchors = geometric_uniform(num_anchors, dim).double()
    expected = torch.full((num_anchors, num_anchors), -1 / (num_anchors - 1), dtype=torch.float64).fill_diagonal_(1)
    assert torch.allclose(anchors @ anchors.T, expected, atol=1e-6)


@pytest.mark.parametrize(("num_anchors", "dim"), [(4, 2), (130, 128), (256, 128), (12, 8), (100, 64)])
def test_up_to_twice_the_width_no_two_are_closer_than_a_right_angle(num_anchors: int, dim: int) -> None:
    """Rankin 1955: with more than D+1 directions the largest cosine cannot be below 0."""
    anchors = geometric_uniform(num_anchors, dim)
    assert largest_cosine(anchors) < 1e-6
    assert anchors.sum(0).norm() < 1e-4, "no side of the sphere is preferred"
    assert torch.allclose(anchors.norm(dim=1), torch.ones(num_anchors))


@pytest.mark.parametrize(
    ("num_anchors", "dim", "best"),
    [(5, 2, 0.309017), (7, 3, 0.210138), (12, 3, 0.447214)],  # regular pentagon; Tammes' problem; icosahedron
)
def test_beyond_it_comes_close_to_the_best_known(num_anchors: int, dim: int, best: float) -> None:
    assert largest_cosine(geometric_uniform(num_anchors, dim)) < best + 0.01


@pytest.mark.parametrize(("num_anchors", "dim"), [(10, 16), (20, 16), (40, 16)])
def test_the_seed_decides_everything(num_anchors: int, dim: int) -> None:
    torch.manual_seed(0)
    first = geometric_uniform(num_anchors, dim, seed=1)
    torch.manual_seed(1)
    assert torch.equal(first, geometric_uniform(num_anchors, dim, seed=1))
    assert not torch.allclose(first, geometric_uniform(num_anchors, dim, seed=2), atol=0.1)


@pytest.mark.parametrize(("num_anchors", "dim"), [(1, 8), (0, 8), (-3, 8), (4, 0)])
def test_impossible_numbers_are_refused(num_anchors: int, dim: int) -> None:
    with pytest.raises(InputError):
        geometric_uniform(num_anchors, dim)
