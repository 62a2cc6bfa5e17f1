"""Medians, intervals and ratios of rounds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evensphere.bench.rows import Row, counted, interval, summarise, write_rows

VALUES = st.lists(st.floats(0.1, 100), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("n", "ranks"), [(1, (1, 1)), (5, (1, 5)), (6, (1, 6)), (10, (2, 9)), (25, (8, 18)), (100, (40, 61))]
)
def test_the_interval_has_the_ranks_of_the_sign_test(n: int, ranks: tuple[int, int]) -> None:
    """Conover, Practical Nonparametric Statistics: the binomial's 95 % ranks; everything where there are none."""
    values = list(range(1, n + 1))
    random.Random(0).shuffle(values)
    assert interval([float(value) for value in values]) == ranks


def test_the_interval_covers_the_median_of_a_skewed_distribution() -> None:
    draw = random.Random(1)
    covered = 0
    for _ in range(1000):
        low, high = interval([draw.expovariate(1.0) for _ in range(15)])
        covered += low <= 0.6931 <= high
    assert 940 <= covered <= 985  # 96.5 % by the binomial


@given(VALUES, st.floats(0.5, 2))
def test_a_ratio_is_taken_within_each_round(values: list[float], factor: float) -> None:
    row = summarise("step", [factor * value for value in values], "ms", values)
    assert row.ratio == pytest.approx(factor)
    assert row.ratio_low == pytest.approx(factor)
    assert row.ratio_high == pytest.approx(factor)
    assert row.n == len(values)
    assert row.median == pytest.approx(factor * median(values))
    assert row.min <= row.low <= row.median <= row.high <= row.max


def test_what_is_counted_has_no_spread() -> None:
    row = counted("operations", 12, "operations")
    assert row == Row("operations", 1, 12, 12, 12, 12, 12, "operations", None, None, None)


def test_the_lines_hold_the_row_and_what_it_was_measured_on(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_rows(file, [counted("a", 1, "ms"), counted("b", 2, "ms")], {"device": "CPU", "packages": {"torch": "2"}})
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["what"] for line in lines] == ["a", "b"]
    assert all(line["device"] == "CPU" and line["packages"] == {"torch": "2"} and line["n"] == 1 for line in lines)
