"""The anchors: as far from each other as any directions can be."""

from __future__ import annotations

import math

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


KNOWN = [
    *((5, 2, 0.309017), (7, 3, 0.210138), (12, 3, 0.447214)),  # regular pentagon; Tammes' problem; icosahedron
    *((10, 4, 1 / 6), (16, 5, 0.2), (24, 4, 0.5)),  # Petersen's code; Clebsch's; the 24-cell
]


@pytest.mark.parametrize(("num_anchors", "dim", "best"), KNOWN)
def test_beyond_it_finds_the_best_known(num_anchors: int, dim: int, best: float) -> None:
    assert largest_cosine(geometric_uniform(num_anchors, dim)) == pytest.approx(best, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("num_anchors", "dim"), [(40, 5), (72, 6), (240, 8)])
def test_it_finds_the_kissing_configurations(num_anchors: int, dim: int) -> None:
    """The shortest vectors of the lattices D5, E6 and E8."""
    assert largest_cosine(geometric_uniform(num_anchors, dim)) == pytest.approx(0.5, abs=1e-3)


def levenshtein(dim: int, cosine: float) -> float:
    """The most directions in R^dim whose cosines are at most `cosine`."""
    assert 0 <= cosine <= (math.sqrt(dim + 3) - 1) / (dim + 2)
    return dim * (1 - cosine) * (2 + (dim + 1) * cosine) / (1 - dim * cosine**2)


def welch(lines: int, dim: int) -> float:
    """The least that the largest |cosine| between lines in R^dim can be."""
    orthoplex = 1 / math.sqrt(dim) if lines > dim * (dim + 1) / 2 else 0.0
    return max(math.sqrt((lines - dim) / (dim * (lines - 1))), orthoplex)


@pytest.mark.parametrize(("num_anchors", "dim"), [(10, 4), (16, 5), (40, 16), (70, 33), (300, 128)])
def test_no_bound_is_broken(num_anchors: int, dim: int) -> None:
    anchors = geometric_uniform(num_anchors, dim)
    assert num_anchors <= levenshtein(dim, largest_cosine(anchors) + 1e-5)
    assert (anchors @ anchors.T).fill_diagonal_(0).abs().max() > welch(num_anchors, dim)


def test_some_bounds_are_attained() -> None:
    assert levenshtein(8, 0.0) == 16
    assert levenshtein(5, largest_cosine(geometric_uniform(16, 5))) == pytest.approx(16, abs=0.1)
    assert largest_cosine(geometric_uniform(24, 4)) == pytest.approx(welch(12, 4), abs=1e-3), "orthoplex"


@pytest.mark.parametrize(("num_anchors", "dim"), [(61, 13), (90, 20)])
def test_orbits_are_as_good_as_points(num_anchors: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither K nor D need be a multiple of anything."""
    points = largest_cosine(geometric_uniform(num_anchors, dim))
    monkeypatch.setattr("evensphere.gh.anchors._WORK", 2_000)
    orbits = geometric_uniform(num_anchors, dim)
    assert orbits.shape == (num_anchors, dim)
    assert torch.allclose(orbits.norm(dim=1), torch.ones(num_anchors))
    assert largest_cosine(orbits) < points + 0.03


def plain_descent(num_anchors: int, dim: int, seed: int) -> float:
    """The largest cosine that Adam leaves, from a random start, without orbits or opposites."""
    points = torch.randn(num_anchors, dim, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    optimizer = torch.optim.Adam([points])
    for step in range(600):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.002 ** (step / 599)
        unit = torch.nn.functional.normalize(points, dim=1)
        sharpness = 10 * 500 ** (step / 599)
        cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
        optimizer.zero_grad()
        (torch.logsumexp(sharpness * cosines.flatten(), 0) / sharpness).backward()
        optimizer.step()
    return largest_cosine(torch.nn.functional.normalize(points.detach(), dim=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_anchors", "dim"),
    [(24, 4), (40, 5), (50, 8), (100, 16), (150, 32), pytest.param(300, 128, marks=pytest.mark.soak)],
)
def test_it_is_no_worse_than_the_best_of_20_restarts(num_anchors: int, dim: int) -> None:
    best = min(plain_descent(num_anchors, dim, seed) for seed in range(20))
    ours = largest_cosine(geometric_uniform(num_anchors, dim))
    print(f"K={num_anchors} D={dim}: ours {ours:.4f}, best of 20 {best:.4f}")
    assert ours < best + 0.002


@pytest.mark.soak
def test_ten_thousand_anchors_beat_any_set_of_opposite_pairs() -> None:
    assert largest_cosine(geometric_uniform(10_000, 2048)) < 0.8 * welch(5_000, 2048)


@pytest.mark.parametrize(("num_anchors", "dim"), [(10, 16), (20, 16), (9, 4)])
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
