from __future__ import annotations

import math

import pytest
import torch

from evensphere.errors import InputError
from evensphere.toy.learn import COUNTS, closest_directions, clusters, head_arc, learn, shortest_arc

# Stated before any test was run over seeds: GH makes the head's arc at least this much smaller, in every seed.
MARGIN = 20.0  # degrees


def on_circle(*degrees: float) -> torch.Tensor:
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_the_shortest_arc_goes_round_the_cut_at_180_degrees() -> None:
    start, extent = shortest_arc(on_circle(170, 175, -175, -170), 1.0)
    assert start == pytest.approx(170, abs=1e-3)
    assert extent == pytest.approx(20, abs=1e-3)


def test_the_shortest_arc_leaves_out_the_share_that_is_furthest_off() -> None:
    points = on_circle(*range(0, 90, 10), 200)
    assert shortest_arc(points, 0.9)[1] == pytest.approx(80, abs=1e-3)
    assert shortest_arc(points, 1.0)[1] == pytest.approx(200, abs=1e-3)


def test_an_even_spread_takes_its_share_of_the_circle() -> None:
    angles = [360 * i / 1000 for i in range(1000)]
    assert shortest_arc(on_circle(*angles), 0.9)[1] == pytest.approx(0.899 * 360, abs=0.01)


def test_the_head_is_the_cluster_with_number_0() -> None:
    points = on_circle(0, 10, 90, 300)
    assert head_arc(points, torch.tensor([0, 0, 1, 2]))[1] == pytest.approx(10, abs=1e-3)


def test_closest_directions_are_angles_between_mean_directions() -> None:
    points = on_circle(-10, 10, 80, 100, 215)
    assert closest_directions(points, torch.tensor([0, 0, 1, 1, 2])) == pytest.approx(90, abs=1e-3)
    assert closest_directions(on_circle(5, 5), torch.tensor([0, 1])) == pytest.approx(0, abs=1e-2)


def test_clusters_are_where_and_as_large_as_they_should_be() -> None:
    points, labels = clusters(seed=3)
    assert torch.bincount(labels).tolist() == list(COUNTS)
    for label, angle in enumerate((0, 120, 240)):
        centre = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
        within = 4 * 0.25 / math.sqrt(COUNTS[label])  # four standard errors
        assert torch.allclose(points[labels == label].mean(0), centre, atol=within)


def test_the_arms_share_points_views_and_first_weights() -> None:
    """Until the warm-up ends they are one network, bit for bit."""
    plain, gh = learn("plain", 1, steps=60), learn("gh", 1, steps=60)
    warm_up = 60 // 5
    for (step, a), (same_step, b) in zip(plain.snapshots, gh.snapshots, strict=True):
        assert step == same_step
        assert torch.equal(a, b) == (step <= warm_up)


def test_the_same_seed_gives_the_same_bits() -> None:
    assert torch.equal(learn("gh", 2, steps=40).points, learn("gh", 2, steps=40).points)
    assert not torch.equal(learn("gh", 2, steps=40).points, learn("gh", 3, steps=40).points)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(InputError, match="at least 10"):
        learn("gh", 0, steps=9)


@pytest.mark.slow
def test_gh_takes_room_from_the_head_in_every_seed() -> None:
    for seed in range(5):
        plain, gh = learn("plain", seed, steps=600), learn("gh", seed, steps=600)
        assert plain.head_arc - gh.head_arc >= MARGIN, f"seed {seed}: {plain.head_arc} and {gh.head_arc}"
