"""Differences and their intervals, against scipy and by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows, to_html, to_markdown
from evensphere.reproduce.results import Score, detectable_errors, paired_difference
from evensphere.reproduce.summary import tables


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    first, second = [52.1, 53.4, 51.8, 54.0], [50.0, 52.9, 51.1, 51.2]
    difference = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert difference is not None
    assert difference.margin is not None
    assert (difference.mean - difference.margin, difference.mean + difference.margin) == pytest.approx(
        (interval.low, interval.high)
    )


def test_only_seeds_that_both_have_are_compared() -> None:
    difference = paired_difference({0: 1.0, 1: 5.0, 2: 9.0}, {1: 4.0, 2: 7.0, 3: 100.0})
    assert difference is not None
    assert (difference.mean, difference.seeds) == (1.5, 2)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 3.0}, {0: 1.0}) == (2.0, None, None, 1)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(seeds: int) -> None:
    """Of 20,000 simulated tables in which the difference is that many standard errors, noise 1."""
    tables = np.random.default_rng(0).normal(detectable_errors(seeds - 1) / seeds**0.5, 1, size=(20_000, seeds))
    found = stats.ttest_1samp(tables, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_the_page_says_what_the_scores_say() -> None:
    scores = [
        Score("r", arm, seed, "probe", column, value + seed, 60.0, "a CPU")
        for arm, value in (("gh", 52.0), ("two-stage", 50.0), ("base", 51.0))
        for seed in range(3)
        for column in ("many", "medium", "few", "std", "average")
    ]
    blocks = tables("pilot", "evensphere reproduce pilot", scores)
    page = to_markdown(blocks)
    assert page.startswith("# evensphere reproduce pilot\n")
    assert "| GH | 53.00 ± 1.00 |" in page
    assert "| GH, against two-stage rate, no GH | +2.00 [+2.00, +2.00] |" in page
    assert "| GH, against base | +1.00 [+1.00, +1.00] |" in page
    assert "a CPU" in page
    assert "no claim" not in page
    html = to_html(blocks, Path())
    assert html.count("<table>") == page.count("|---|") == 2
    assert "<td>+2.00 [+2.00, +2.00]</td>" in html


def test_a_page_cannot_be_broken_by_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not really a picture")
    blocks: list[Block] = [
        Heading(1, "<script>"),
        Paragraph("a & b"),
        Rows(["name", "n"], [["a|b", "<b>"]]),
        Picture("a.png", '"quoted"'),
    ]
    html = to_html(blocks, tmp_path)
    assert "<script>" not in html
    assert "<b>" not in html
    assert "a &amp; b" in html
    assert 'alt="&quot;quoted&quot;"' in html
    assert "data:image/png;base64,bm90" in html
    assert to_markdown(blocks).splitlines()[4:7] == ["| name | n |", "|---|---:|", "| a&#124;b | <b> |"]
