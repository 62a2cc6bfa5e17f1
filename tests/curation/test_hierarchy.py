"""Even draws from a tree: a slow loop, properties, known clusters."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.curation.collections_made_up import clusters

from evensphere.curation.hierarchy import default_levels, draw_evenly, even_shares, fill_evenly, k_means, tree
from evensphere.errors import InputError
from evensphere.metrics.cluster import normalized_mutual_information
from evensphere.metrics.signals import effective_number


def random_paths(draw: st.DrawFn) -> torch.Tensor:
    n = draw(st.integers(1, 40))
    fine = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    middle = [number // 2 for number in fine]
    return torch.tensor([[number // 2 for number in middle], middle, fine])


@st.composite
def paths_and_size(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    paths = random_paths(draw)
    return paths, draw(st.integers(1, paths.shape[1]))


def slow_shares(paths: list[tuple[int, ...]], size: float) -> list[float]:
    """One branch after the other, each node's amount handed out in small equal steps."""
    if not paths[0]:
        return [size / len(paths)] * len(paths)
    branches: dict[int, list[int]] = {}
    for i, path in enumerate(paths):
        branches.setdefault(path[0], []).append(i)
    given, left = dict.fromkeys(branches, 0.0), size
    while left > 1e-12:
        open_ones = [b for b in branches if len(branches[b]) - given[b] > 1e-12]
        step = min(left / len(open_ones), *(len(branches[b]) - given[b] for b in open_ones))
        for b in open_ones:
            given[b] += step
        left -= step * len(open_ones)
    shares = [0.0] * len(paths)
    for b, members in branches.items():
        below = slow_shares([paths[i][1:] for i in members], given[b])
        for i, share in zip(members, below, strict=True):
            shares[i] = share
    return shares


@given(paths_and_size())
@settings(max_examples=60, deadline=None)
def test_shares_are_those_of_the_slow_loop(case: tuple[torch.Tensor, int]) -> None:
    paths, size = case
    shares = even_shares(paths, size)
    rows = [tuple(path) for path in paths.T.tolist()]
    assert shares.tolist() == pytest.approx(slow_shares(rows, size), abs=1e-9)
    assert float(shares.sum()) == pytest.approx(size)
    assert float(shares.min()) > 0
    assert float(shares.max()) <= 1


@given(paths_and_size(), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_a_draw_has_its_size_no_image_twice_and_gives_every_branch_its_part(
    case: tuple[torch.Tensor, int], seed: int
) -> None:
    paths, size = case
    shares = even_shares(paths, size)
    chosen = draw_evenly(shares, paths, size, seed)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == size
    assert torch.equal(chosen, draw_evenly(shares, paths, size, seed))
    for level in paths:
        drawn = torch.bincount(level[chosen], minlength=10)
        part = torch.zeros(10, dtype=torch.float64).index_add(0, level, shares)
        assert bool(((drawn - part).abs() < 2).all()), "a branch gives its part, rounded, and certain images besides"


def test_a_draw_follows_the_shares_on_average() -> None:
    paths = torch.tensor([[0] * 6 + [1] * 2, [0, 0, 0, 0, 1, 1, 2, 2]])
    shares = even_shares(paths, 4)
    times = torch.zeros(8)
    for seed in range(600):
        times[draw_evenly(shares, paths, 4, seed)] += 1
    assert torch.allclose(times / 600, shares.float(), atol=0.07)
    assert shares.tolist() == pytest.approx([0.25] * 4 + [0.5] * 2 + [1.0] * 2)


def test_filling_stops_at_what_there_is() -> None:
    assert fill_evenly(torch.tensor([1.0, 5.0, 9.0]).double(), 9.0).tolist() == pytest.approx([1, 4, 4])
    assert fill_evenly(torch.tensor([1.0, 5.0, 9.0]).double(), 15.0).tolist() == pytest.approx([1, 5, 9])


def test_k_means_finds_clusters_and_survives_points_that_coincide() -> None:
    points, which = clusters([40, 40, 40])
    assert normalized_mutual_information(k_means(points, 3, seed=0).assigned, which) == pytest.approx(1)
    same = k_means(torch.ones(30, 4), 5, seed=0, rounds=2)
    assert same.assigned.tolist() == [0] * 30
    with pytest.raises(InputError, match="give 1 to 30"):
        k_means(torch.ones(30, 4), 31, seed=0)


def test_many_points_take_mini_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evensphere.curation.hierarchy._EXACT", 50)
    points, which = clusters([60, 60, 60])
    assert normalized_mutual_information(k_means(points, 3, seed=0).assigned, which) == pytest.approx(1)


def test_a_tree_is_nested_and_does_not_depend_on_the_order() -> None:
    points, _ = clusters([120, 30, 10, 10], spread=0.3)
    paths = tree(points, [20, 4], seed=0)
    assert paths.shape == (2, 170)
    pairs = {tuple(pair) for pair in paths.T.tolist()}
    assert len(pairs) == len({fine for _, fine in pairs}), "a fine cluster lies in one coarse one"
    order = torch.randperm(170, generator=torch.Generator().manual_seed(1))
    assert torch.equal(tree(points[order], [20, 4], seed=0), paths[:, order])
    assert not torch.equal(tree(points, [20, 4], seed=1), paths)


def test_an_even_draw_from_skewed_clusters_is_flatter() -> None:
    points, which = clusters([400, 100, 25, 12, 6], spread=0.2)
    paths = tree(points, [60, 8], seed=0)
    chosen = draw_evenly(even_shares(paths, 100), paths, 100, seed=0)

    def flatness(labels: torch.Tensor) -> float:
        counts = torch.bincount(labels).float()
        return effective_number(counts / counts.sum())

    assert flatness(which[chosen]) > flatness(which) + 0.5


def test_levels_get_coarser() -> None:
    assert default_levels(9754) == [609, 76, 9]
    assert default_levels(5) == [1]
