"""Figures show what the tables say."""

from __future__ import annotations

import json
from pathlib import Path

from tests.report.fake_runs import Page

from evensphere.report import write_report
from evensphere.report.arms import group_arms
from evensphere.report.dots import percent_ticks
from evensphere.report.figures import phase_marks
from evensphere.report.record import read_runs


def test_marks_are_the_ends_of_warm_up_and_ramp(six: list[Path]) -> None:
    marks = phase_marks(group_arms(read_runs(six)))
    assert [(epoch, text.strip()) for epoch, text, _ in marks] == [(10.0, "warm-up ends"), (15.0, "ramp ends")]


def test_numbers_of_the_group_picture_are_in_a_table(six: list[Path]) -> None:
    page = Page(write_report(six).read_text())
    figures = json.loads(next(text for text in page.scripts if text.startswith("{")))
    shown = {float(attrs["value"] or "nan") for tag, attrs in page.tags if tag == "data"}
    drawn = {x for trace in figures["groups"]["data"] if trace["mode"] == "markers" for x in trace["x"]}
    assert drawn
    assert drawn <= shown


def test_ticks_are_round_few_and_never_above_100_percent() -> None:
    assert percent_ticks(93.9, 101.8) == [94, 96, 98, 100]
    assert percent_ticks(-7, 127) == [0, 20, 40, 60, 80, 100]
    assert percent_ticks(38.0, 44.0) == [38, 39, 40, 41, 42, 43, 44]
