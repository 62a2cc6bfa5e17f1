"""Differences and their intervals, against scipy and by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evensphere.reproduce.cells import get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows, to_html, to_markdown, to_tex
from evensphere.reproduce.pictures import arms_picture, curves_picture, differences_picture
from evensphere.reproduce.results import Score, detectable_errors, paired_difference
from evensphere.reproduce.rows import ranges
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
        Score("r", arm, seed, "probe", column, value + seed, 60.0, "CPU, 2 cores")
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
    assert "Recipe r on CPU, 2 cores; seeds 0-2." in page
    assert "no claim" not in page
    html = to_html(blocks, Path())
    assert html.count("<table>") == page.count("|---|") == 2
    assert "<td>+2.00 [+2.00, +2.00]</td>" in html


@pytest.mark.parametrize(("device", "end"), [("NVIDIA H200", "1.00 ± 0.00 | 3 (0-2) |"), ("CPU, 2 cores", "3 (0-2) |")])
def test_times_are_those_of_a_device_with_a_name(device: str, end: str) -> None:
    scores = [Score("r", "gh", seed, "knn", "average", 50.0, 60.0, device) for seed in range(3)]
    page = to_markdown(tables("pilot", "evensphere reproduce pilot", scores))
    assert f"| GH | - | - | - | - | 50.00 ± 0.00 | {end}\n" in page


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


def test_seeds_in_words() -> None:
    assert [ranges(seeds) for seeds in ({0, 1, 2}, {5, 3, 4, 0}, {7}, set())] == ["0-2", "0, 3-5", "7", ""]


def test_latex_has_a_float_for_each_table_and_nothing_that_latex_would_take_for_its_own() -> None:
    blocks: list[Block] = [
        Heading(1, "title"),
        Paragraph("two\nlines"),
        Heading(2, r"A_b & 5 % \\x"),
        Rows(["arm", "many"], [["[GH] {x}^2 ~ $1 #1 <", "-0.62 [-2.59, +1.36]"], ["two-stage", "3 ± 1"]]),
        Rows(["difference", "many"], []),
    ]
    tex = to_tex(blocks, "pilot")
    code = [line for line in tex.splitlines() if not line.startswith("%")]
    assert "two" not in code
    assert r"\caption{A\_b \& 5 \% \textbackslash{}\textbackslash{}x: arm}" in code
    row = r"{}[GH] \{x\}\textasciicircum{}2 \textasciitilde{} \$1 \#1 \textless{} & $-$0.62 [$-$2.59, $+$1.36] \\"
    assert row in code
    assert r"two-stage & 3 $\pm$ 1 \\" in code
    for environment in ("table", "adjustbox", "tabular"):
        begun, ended = (tex.count(rf"\{word}{{{environment}}}") for word in ("begin", "end"))
        assert begun == ended == 2
    assert [line for line in code if line.startswith(r"\label")] == [r"\label{tab:pilot-1}", r"\label{tab:pilot-2}"]


def test_pictures_of_many_arms_and_of_some(tmp_path: Path) -> None:
    """Whatever is finished can be drawn: one arm of a large table, all of it, seeds that do not overlap."""
    table = get_table("cifar100")
    for number, arms in enumerate((table.arms, table.arms[:1])):
        scores = [
            Score("r", arm, seed, "probe", column, 40.0 + seed + len(arm), 60.0, "a CPU")
            for arm in arms
            for seed in ((0, 1) if arm.endswith("gh") else (1, 2))
            for column in ("many", "medium", "few", "average")
        ]
        curves = {arm: {0: [(1.0, 5.0), (2.0, 9.0)]} for arm in arms}
        for name, picture in {
            "arms": arms_picture(tmp_path / f"arms-{number}.png", scores, "probe", table.arms),
            "differences": differences_picture(
                tmp_path / f"differences-{number}.png", scores, "probe", table.contrasts
            ),
            "curves": curves_picture(tmp_path / f"curves-{number}.png", curves, 1.0, apart=True),
        }.items():
            assert picture.file == f"{name}-{number}.png"
            assert (tmp_path / picture.file).stat().st_size > 5_000
