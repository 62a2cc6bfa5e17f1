"""Figures show what the tables say."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tests.report.fake_runs import Page, make_run, results, scores

from evensphere.report import write_report
from evensphere.report.arms import ClassScores, group_arms
from evensphere.report.dots import class_rows, percent_ticks
from evensphere.report.figures import learnt_figure, learnt_runs, phase_marks
from evensphere.report.record import read_run, read_runs


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


def test_what_pi_learnt_is_drawn_region_by_region(tmp_path: Path, six: list[Path]) -> None:
    folder = make_run(tmp_path / "a")
    priors = [[0.2, 0.3, 0.5], [0.0, 0.25, 0.75]] * 40
    events = [{"event": "population", "step": 10 * i, "prior": prior} for i, prior in enumerate(priors)]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    ((_, run),) = learnt_runs(group_arms([read_run(folder)]))
    heat = learnt_figure(run).data[0]
    assert len(heat.x) == 60, "as many columns as can be seen"
    assert [row[-1] for row in heat.customdata] == [0.0, 25.0, 75.0], "the largest on top"
    even = [-3, math.log2(0.75), math.log2(2.25)]
    assert [round(float(row[-1]), 2) for row in heat.z] == [round(times, 2) for times in even]
    assert len(learnt_runs(group_arms(read_runs(six)))) == 1, "the arm without GH has none"


def test_long_names_leave_room_for_the_figure_on_a_phone() -> None:
    names = ["short", "God-Morgon-Orange-Red-Grapefruit-Juice"]
    labels = [row.label for row in class_rows([ClassScores(name, 1200, {}) for name in names])]
    assert labels == ["short (1,200)", "God-Morgon-Or…it-Juice (1,200)"]


def test_bars_of_one_seed_are_intervals(tmp_path: Path) -> None:
    one = results(40, probe=scores(40, intervals={"few": [30.0, 55.0]}))
    page = write_report(make_run(tmp_path / "a", eval_json=one)).read_text()
    figures = json.loads(next(text for text in Page(page).scripts if text.startswith("{")))
    bars = next(trace["error_x"] for trace in figures["groups"]["data"] if "error_x" in trace)
    assert (bars["arrayminus"], bars["array"]) == ([0, 0, 10, 0], [0, 0, 15, 0])
