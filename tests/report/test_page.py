"""The page is one safe, offline file, whatever the run folders hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.report.fake_runs import EVIL, Page, make_run, results

from evensphere.errors import InputError
from evensphere.report import groups_picture, write_report
from evensphere.report.page import render_page
from evensphere.report.record import read_run, read_runs


def test_the_page_is_safe_and_offline(six: list[Path]) -> None:
    html = write_report(six).read_text()
    page = Page(html)
    assert len(html) < 6_000_000
    assert not [attrs for _, attrs in page.tags if {"src", "href", "srcset", "data"} & set(attrs)]
    policy = next(attrs["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in attrs)
    assert policy is not None
    assert "default-src 'none'" in policy
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts[1:]}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    styles = html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in styles
    assert "@import" not in styles


def test_names_are_inert(tmp_path: Path) -> None:
    classes = (EVIL, "b", "<b>c</b>")
    folder = make_run(tmp_path / "<script>x", "gh", 0, results(40, classes), name=EVIL, summary=EVIL)
    make_run(tmp_path / "other", EVIL, 0, results(41, classes), name=EVIL)
    (folder / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    (folder / "skipped.csv").write_text(f'path,reason\n"{EVIL}","{EVIL}"\n')
    page = Page(write_report([folder, tmp_path / "other"]).read_text())
    assert len(page.scripts) == 3
    assert not {tag for tag, _ in page.tags} & {"img", "a", "b", "iframe"}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    # plotly reads tags in its texts, so names reach it as entities
    assert "<" not in json.dumps(json.loads(page.scripts[0])).replace("<extra></extra>", "")


def test_every_picture_is_announced_and_under_a_heading(six: list[Path]) -> None:
    page = Page(write_report(six).read_text())
    plots = [attrs for _, attrs in page.tags if attrs.get("class") == "plot"]
    assert {plot["id"] for plot in plots} == {
        f"figure-{name}"
        for name in ("groups", "classes", "loss", "gh", "rate", "knn", "sizes", "effective", "learnt-0")
    }
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)
    assert [tag for tag, _ in page.tags].count("h1") == 1
    assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")


def test_the_page_is_the_same_every_time(six: list[Path]) -> None:
    assert render_page(read_runs(six)) == render_page(read_runs(six))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_content_makes_the_report_fail(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = make_run(tmp_path_factory.mktemp("any") / "run", eval_json=results(40))
    file = data.draw(st.sampled_from(["recipe.json", "eval.json", "metrics.jsonl"]))
    if file == "metrics.jsonl":
        kind = data.draw(st.sampled_from(["step", "evaluation", "population"]))
        keys = ("step", "epoch", "loss", "ssl", "gh", "gh_weight", "lr", "knn", "prior")
        events = [{"event": kind, **{key: data.draw(anything) for key in keys}} for _ in range(2)]
        (folder / file).write_text("\n".join(map(json.dumps, events)) + "\n")
    else:
        content = json.loads((folder / file).read_text())
        where = data.draw(st.sampled_from([content, content.get("probe", content), content.get("resolved", content)]))
        where[data.draw(st.sampled_from(sorted(where)))] = data.draw(anything)
        (folder / file).write_text(json.dumps(content))
    assert json.loads(Page(render_page([read_run(folder)])).scripts[0]) is not None


def test_the_page_goes_to_the_first_folder_or_where_asked(six: list[Path], tmp_path: Path) -> None:
    assert write_report(six[0]) == six[0] / "report.html"
    assert write_report(six) == six[0] / "report.html"
    asked = tmp_path / "new" / "page.html"
    assert write_report(six, asked) == asked
    assert [file.name for file in asked.parent.iterdir()] == ["page.html"]


def test_what_is_not_a_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder \(it has no recipe\.json\)"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="No run folder was given"):
        write_report([])
    folder = make_run(tmp_path / "a")
    with pytest.raises(InputError, match="is a folder; give the name of a file"):
        write_report(folder, tmp_path)
    with pytest.raises(InputError, match="has been evaluated on labelled images"):
        groups_picture(folder, tmp_path / "x.png")


@pytest.mark.parametrize("heavy", ["torch", "matplotlib"])
def test_the_report_loads_nothing_heavy(heavy: str) -> None:
    code = f"import sys, evensphere.report; sys.exit('{heavy}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
