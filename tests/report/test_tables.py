"""Tables hold the numbers of the files, and nothing where there is none."""

from __future__ import annotations

import re
from pathlib import Path

from tests.report.fake_runs import FEW, Page, make_run, results, said, scores

from evensphere.report import write_report
from evensphere.report.arms import group_arms
from evensphere.report.record import read_run, read_runs
from evensphere.report.tables import group_table, seed_table


def test_tables_hold_the_inputs(six: list[Path]) -> None:
    arms = group_arms(read_runs(six))
    rows = {(row[0], row[1]): row[4] for row in seed_table(arms, "probe").rows}
    labels = {"base": "without GH", "gh": "with GH"}
    assert rows == {(labels[arm], str(seed)): (few, None, 1) for (arm, seed), few in FEW.items()}
    page = Page(write_report(six).read_text())
    shown = {float(attrs["value"] or "nan") for tag, attrs in page.tags if tag == "data"}
    assert shown >= {*FEW.values(), 41.0, 44.0, 60.0, 50.25, 7.125, 8.5, 45.0, 12.0}


def test_groups_without_classes_are_left_open(tmp_path: Path) -> None:
    empty = results(40, probe=scores(40) | {"few": None, "std": None, "std_sample": None})
    folder = make_run(tmp_path / "a", eval_json=empty)
    assert "average 50.2 %, no class counts as few (linear probe)." in said(folder)
    table = group_table(group_arms([read_run(folder)]), "probe")
    assert table.rows[0][3] is None
    assert "<td>\N{EN DASH}</td>" in re.sub(r"\s", "", write_report(folder).read_text().split("</main>")[0])
