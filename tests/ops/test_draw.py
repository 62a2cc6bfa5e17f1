"""Addressed randomness: the same address gives the same bits, different addresses independent ones."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evensphere.ops.draw import permutation, seed_for, uniform


def test_the_bits_are_pinned() -> None:
    """Changing the generator would silently change every published result."""
    drawn = uniform(0, "crop/0", 3, torch.tensor([0, 7, 10_000]), 2)
    expected = uniform(0, "crop/0", 3, torch.tensor([7]), 2)[0]
    assert torch.equal(drawn[1], expected)
    assert (drawn * 2**24).long().tolist() == [[2499483, 10245468], [3206396, 14745253], [11950277, 8810183]]
    assert permutation(1, "order", 0, 10).tolist() == [0, 2, 6, 1, 8, 3, 4, 7, 9, 5]


@given(
    st.integers(0, 2**31), st.integers(0, 10_000), st.lists(st.integers(0, 2**40), min_size=1, max_size=20, unique=True)
)
def test_a_draw_depends_on_its_own_address_only(seed: int, time: int, places: list[int]) -> None:
    together = uniform(seed, "flip", time, torch.tensor(places), 3)
    alone = torch.cat([uniform(seed, "flip", time, torch.tensor([place]), 3) for place in places])
    assert torch.equal(together, alone)
    assert torch.equal(together[:, :2], uniform(seed, "flip", time, torch.tensor(places), 2))
    assert ((together >= 0) & (together < 1)).all()


def test_draws_are_uniform_and_independent() -> None:
    place = torch.arange(20_000)
    first = uniform(0, "jitter", 0, place, 2)
    for column in (
        first[:, 0],
        first[:, 1],
        uniform(0, "jitter", 1, place, 1)[:, 0],
        uniform(1, "jitter", 0, place, 1)[:, 0],
    ):
        assert stats.kstest(column.numpy(), "uniform").pvalue > 1e-3
    columns = [first[:, 0], first[:, 1], uniform(0, "flip", 0, place, 1)[:, 0], uniform(0, "jitter", 1, place, 1)[:, 0]]
    columns.append(first[:, 0].roll(1))
    correlation = torch.corrcoef(torch.stack(columns)).fill_diagonal_(0)
    assert correlation.abs().max() < 5 / len(place) ** 0.5


def test_a_permutation_holds_everything_once_and_changes_with_the_epoch() -> None:
    orders = [permutation(0, "order", epoch, 1000) for epoch in range(3)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(1000))
    assert not torch.equal(orders[0], orders[1])


def test_seeds_for_other_generators_differ_by_every_part_of_the_address() -> None:
    seeds = {seed_for(0, "init"), seed_for(1, "init"), seed_for(0, "step"), seed_for(0, "init", 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
