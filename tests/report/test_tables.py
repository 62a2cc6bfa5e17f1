"""Tables hold the numbers of the files, and nothing where there is none."""

from __future__ import annotations

import re
from pathlib import Path

from tests.report.fake_runs import FEW, Page, make_run, results, said, scores

from evensphere.report import write_report
from evensphere.report.arms import Spread, group_arms
from evensphere.report.record import read_run, read_runs
from evensphere.report.tables import group_table, recipe_table, region_table, seed_table


def test_tables_hold_the_inputs(six: list[Path]) -> None:
    arms = group_arms(read_runs(six))
    rows = {(row[0], row[1]): row[4] for row in seed_table(arms, "probe").rows}
    labels = {"base": "without GH", "gh": "with GH"}
    assert rows == {(labels[arm], str(seed)): (few, None, 1, None) for (arm, seed), few in FEW.items()}
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


def test_one_seed_has_the_interval_of_its_test_images(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", eval_json=results(40, probe=scores(40, intervals={"few": [35.04, 45.0]})))
    row = group_table(group_arms([read_run(folder)]), "probe").rows[0]
    assert [cell.text if isinstance(cell, Spread) else cell for cell in row[:4]] == [
        "with GH", "60.0", "50.0", "40.0 [35.0\xa0to\xa045.0]",
    ]  # fmt: skip
    make_run(tmp_path / "b", seed=1, eval_json=results(42))
    two = group_table(group_arms(read_runs([folder, tmp_path / "b"])), "probe").rows[0][3]
    assert isinstance(two, Spread)
    assert two.interval is None, "over seeds there is a deviation"


def test_recipes_are_set_side_by_side_where_they_differ(six: list[Path], tmp_path: Path) -> None:
    table = recipe_table(group_arms(read_runs(six)))
    assert table.rows == [["harmonizer.name", "none", "gh"], ["harmonizer.weight", None, "1.0"]]
    other = make_run(tmp_path / "other", "gh", 0, results(40), name="more", epochs=40)
    rows = {row[0]: row[1:] for row in recipe_table(group_arms(read_runs([*six, other]))).rows}
    assert rows["epochs"] == ["20", "20", "40"]
    assert not any("seed" in str(name) for name in rows)


def test_how_far_regions_moved_is_told(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"event": "population", "step": 190, "prior": [0.25, 0.25, 0.5]}\n')
    assert region_table(group_arms([read_run(folder)])).rows[0][-1] == "25.0"
