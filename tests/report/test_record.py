"""A record says what the files of a run say."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from evensphere.report.record import effective_regions, number


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50).filter(lambda sizes: sum(sizes) > 0.1))
def test_effective_regions_lie_between_one_and_all(sizes: list[float]) -> None:
    prior = [size / sum(sizes) for size in sizes]
    assert 1 - 1e-9 <= effective_regions(prior) <= len(prior) + 1e-9
    assert math.isclose(effective_regions([1 / 8] * 8 + [0.0]), 8)


def test_what_is_no_finite_number_is_none() -> None:
    assert [number(value) for value in (10**400, math.nan, "3", None, [1])] == [None] * 5
    assert (number(3), number(2.5)) == (3.0, 2.5)
