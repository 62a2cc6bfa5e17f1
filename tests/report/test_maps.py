"""Maps: what is in the file is on the page, what does not fit is left out fairly, and what is no map is not used."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.hostile.fuzz import json_mutations
from tests.hostile.seeds import RUN_FILES
from tests.report.fake_runs import EVIL, Json, Page, make_map, make_run, results, webp

from evensphere.report import sheets, write_report
from evensphere.report.arms import group_arms
from evensphere.report.page import render_page
from evensphere.report.record import read_run, read_runs
from evensphere.report.sheets import shown_maps


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", eval_json=results(40))


def drawn(html: str) -> list[Json]:
    found: list[Json] = json.loads(html.split('<script type="application/json" id="maps">')[1].split("</script>")[0])
    return found


def test_what_is_in_the_file_is_on_the_page(run: Path) -> None:
    content = make_map(run)
    (image_map,) = drawn(write_report(run).read_text())
    assert [image_map["start"] + name for name in image_map["names"]] == content["names"]
    assert (image_map["x"], image_map["y"]) == (content["x"], content["y"])
    assert image_map["pictures"] == content["thumbnails"]
    of = {one["by"]: [one["names"][i] for i in one["of"]] for one in image_map["colourings"]}
    assert of["density"] == [sheets._TENTHS[tenth] for tenth in content["tenth"]]
    assert of["class"] == [content["classes"][label] for label in content["label"]]
    assert of["group"] == [content["groups"][label] for label in content["label"]]
    assert of["region"][:3] == ["region 1 (34 images)", "region 2 (33 images)", "region 3 (33 images)"]


def test_without_labels_and_regions_density_is_left(run: Path) -> None:
    make_map(run, labels=False, regions=False)
    html = write_report(run).read_text()
    assert [one["by"] for one in drawn(html)[0]["colourings"]] == ["density"]
    assert "No regions are known here" in html
    assert "Images of the smallest and the largest regions" not in html


def test_sheets_show_the_sparsest_the_densest_and_the_ends_of_the_regions(run: Path) -> None:
    sizes = [1, 70, 5, 4, 3, 2, 6, 7, 1, 1]
    region = [k for k, size in enumerate(sizes) for _ in range(size)]
    content = make_map(run, region=region, region_images=sizes)
    (shown,) = shown_maps(group_arms(read_runs(run)))
    sparsest, densest = shown.sheets
    assert [tile.name for tile in sparsest.tiles] == content["names"][:24]
    assert [tile.name for tile in densest.tiles] == content["names"][:-25:-1]
    assert [tile.picture for tile in sparsest.tiles] == [webp(i) for i in range(24)]
    assert [int(sheet.heading.split(":")[0].split()[1]) - 1 for sheet in shown.region_sheets] == [
        0,
        8,
        9,
        5,
        2,
        6,
        7,
        1,
    ]
    assert shown.region_sheets[-1].heading.replace("\xa0", " ") == "Region 2: 70 images, 70 %"
    assert len(shown.region_sheets[-1].tiles) == 8
    assert len(shown.region_sheets[0].tiles) == 1


def test_the_sparsest_are_kept_when_there_is_no_room(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = make_map(run)
    monkeypatch.setattr(sheets, "MOST_POINTS", 40)
    monkeypatch.setattr(sheets, "MOST_PICTURES", 20)  # there is one map
    (image_map,) = drawn(write_report(run).read_text())
    names = [image_map["start"] + name for name in image_map["names"]]
    assert len(names) == 40
    assert names[:20] == content["names"][:20]
    assert set(range(10)) <= {int(i) for i in image_map["pictures"]}
    for i, picture in image_map["pictures"].items():
        assert picture == content["thumbnails"][str(content["names"].index(names[int(i)]))]
    monkeypatch.setattr(sheets, "MOST_NAME_BYTES", 300)
    (image_map,) = drawn(write_report(run).read_text())
    assert 5 < len(image_map["names"]) < 30


def test_maps_share_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [
        make_run(tmp_path / f"{arm}-{seed}", arm, seed, results(40)) for arm in ("base", "gh") for seed in (0, 1)
    ]
    for folder in folders:
        make_map(folder)
    monkeypatch.setattr(sheets, "MOST_POINTS", 100)
    maps = drawn(write_report(folders).read_text())
    assert [one["title"] for one in maps] == ["without GH, seed 0", "with GH, seed 0"], "one for each arm"
    assert [len(one["names"]) for one in maps] == [50, 50]


@pytest.mark.slow
def test_six_large_maps_fit_into_a_page(tmp_path: Path) -> None:
    n, picture = 20_000, base64.b64decode(webp(3))
    large: Json = {
        "names": [f"a/folder/of/some/depth/{i:06d}-{'name' * 30}.jpg" for i in range(n)], "images": n,
        "x": [9_999] * n, "y": [9_999] * n, "tenth": [9] * n, "region": [i % 100 for i in range(n)],
        "region_images": [200] * 100, "label": [i % 1000 for i in range(n)], "groups": ["few"] * 1000,
        "classes": [f"class number {i}" for i in range(1000)],
        "thumbnails": {str(i): base64.b64encode(picture + bytes(1_600 - len(picture))).decode() for i in range(2_000)},
    }  # fmt: skip
    for i in range(6):
        make_map(make_run(tmp_path / str(i), "gh", 0, results(40), name=f"recipe {i}"), side=2, **large)
    html = render_page(read_runs([tmp_path / str(i) for i in range(6)]))
    assert len(drawn(html)) == 6
    assert len(html.encode()) < 12_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"names": "a"}, {"names": [1] * 100}, {"names": ["a" * 2_000_000] + ["b"] * 99}, {"names": []},
        {"x": [1]}, {"y": [10_000] * 100}, {"tenth": [-1] * 100},
        {"tenth": [True] * 100}, {"region": [4] * 100}, {"region_images": 3}, {"label": [2] * 100}, {"groups": ["a"]},
        {"thumbnails": {"100": webp(0)}}, {"thumbnails": {"0": "PHN2Zz4="}}, {"thumbnails": {"0": "x'><script>"}},
        {"thumbnails": {"0": webp(0) + "A" * 8000}}, {"thumbnails": []}, {"images": 3}, {"images": None},
    ],
)  # fmt: skip
def test_what_is_no_map_is_not_used_and_that_is_said(run: Path, change: Json) -> None:
    make_map(run, **change)
    html = write_report(run).read_text()
    assert "map.json is damaged and was not used." in html
    assert 'id="maps"' not in html


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=50) | st.just(b"[]") | st.just(b"{}"))
def test_bytes_of_any_kind_are_read(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = make_run(tmp_path_factory.mktemp("any") / "run")
    (run / "map.json").write_bytes(content)
    record = read_run(run)
    assert record.image_map is None
    assert "map.json is damaged and was not used." in record.problems


@settings(max_examples=60, deadline=None)
@given(content=json_mutations(RUN_FILES["map.json"]))
def test_maps_of_any_content_are_used_or_not(content: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = make_run(tmp_path_factory.mktemp("any") / "run")
    (run / "map.json").write_text(json.dumps(content))
    record = read_run(run)
    assert (record.image_map is None) == ("map.json is damaged and was not used." in record.problems)
    for shown in shown_maps(group_arms([record])):
        json.dumps(shown.drawn)
        assert len(shown.drawn["names"]) == len(shown.drawn["x"]) == len(shown.drawn["colourings"][0]["of"])


def test_a_page_with_a_map_is_as_safe_as_without(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", eval_json=results(40))
    make_map(run, names=[EVIL] * 100, classes=[EVIL, "b"])
    page = Page(render_page(read_runs(run)))
    assert len(page.scripts) == 5, "figures, maps, plotly and two of ours"
    pictures = [attrs for tag, attrs in page.tags if tag == "img" and attrs.get("src")]
    assert pictures
    assert all(str(attrs["src"]).startswith("data:image/webp;base64,") for attrs in pictures)
    assert not {tag for tag, _ in page.tags} & {"a", "b", "iframe"}


def test_what_speaks_against_the_map_is_said_beside_it(run: Path) -> None:
    make_map(run)
    finding = {
        "name": "neighbourhoods",
        "title": "?",
        "level": "warning",
        "sentence": "Not reliable here.",
        "advice": "",
    }
    (run / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    assert shown_maps(group_arms(read_runs(run)))[0].reading.endswith(" Not reliable here.")
    (run / "diagnosis.json").write_text(json.dumps({"findings": [finding | {"level": "ok"}]}))
    assert "reliable" not in shown_maps(group_arms(read_runs(run)))[0].reading


def test_names_that_are_no_letters_are_written(run: Path) -> None:
    make_map(run, names=[f"\udcff{i}.jpg" for i in range(100)])
    assert drawn(write_report(run).read_text())[0]["names"][3] == "\udcff3.jpg"


def test_findings_of_a_diagnosis_are_told(run: Path) -> None:
    findings: list[Any] = [
        {"name": "skew", "title": "How skewed?", "level": "info", "sentence": "Somewhat.", "advice": "Count."},
        {"name": "x", "title": "Loss", "level": "warning", "sentence": "It climbs.", "advice": "Wait."},
        {"name": "x", "title": 3, "level": "warning", "sentence": "It climbs.", "advice": "Wait."},
        {"name": "x", "title": "Odd", "level": "<b>", "sentence": "It climbs.", "advice": "Wait."},
        "nothing",
    ]
    (run / "diagnosis.json").write_text(json.dumps({"findings": findings}))
    html = write_report(run).read_text()
    assert "Warning: Loss" in html
    assert html.index("Warning: Loss") < html.index("Note: How skewed?")
    assert "Odd" not in html.split("</main>")[0]
    (run / "diagnosis.json").write_text("{")
    assert "diagnosis.json is damaged and was not used." in write_report(run).read_text()
