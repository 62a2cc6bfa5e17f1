"""What is kept of a table's runs makes the same page, and the committed page is the one that the kept runs make."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from evensphere.reproduce.publish import keep, publish
from evensphere.reproduce.run import reproduce

ROOT = Path(__file__).parents[2]


def copied(run: Path, to: Path, seed: int) -> None:
    """A kept run under another seed."""
    shutil.copytree(run, to)
    recipe = json.loads((to / "recipe.json").read_text())
    (to / "recipe.json").write_text(json.dumps(recipe | {"seed": seed}))


def test_the_page_says_which_seeds_there_are(tmp_path: Path) -> None:
    """Of an arm that lacks the first ones too; the command is one that asks for all of them."""
    kept, archive = ROOT / "benchmarks" / "results" / "small", tmp_path / "archive" / "small"
    for arm, seeds in {"base": (0, 1, 4), "gh": (1, 4), "two-stage": (4,)}.items():
        for seed in seeds:
            copied(kept / f"{arm}-seed0", archive / f"{arm}-seed{seed}", seed)
    page = publish(tmp_path / "archive", tmp_path / "docs")
    assert "## `evensphere reproduce pilot --scale small --seeds 5`" in page
    assert "seeds 0-1, 4; not every arm has all of them." in page
    probe = page.split("### Linear probe")[1].split("###")[0].splitlines()
    ends = {row.split(" | ")[0].strip("| "): row.split(" | ")[-1] for row in probe if row.startswith("| ")}
    assert [ends[arm] for arm in ("base", "GH", "two-stage rate, no GH")] == ["3 (0-1, 4) |", "2 (1, 4) |", "1 (4) |"]
    assert ends["GH, against base"] == "2 |"
    assert ends["GH, against two-stage rate, no GH"] == "1 |"


@pytest.mark.slow
def test_what_is_kept_makes_the_same_tables(tmp_path: Path) -> None:
    folder = reproduce("pilot", "tiny", seeds=1, out=tmp_path / "runs")
    keep("pilot", "tiny", folder, tmp_path / "archive")
    kept = tmp_path / "archive" / "tiny" / "gh-seed0"
    assert not list(kept.rglob("*.pt"))
    assert not list(kept.rglob("*.safetensors"))
    assert str(tmp_path) not in (kept / "environment.json").read_text() + (kept / "recipe.json").read_text()
    (tmp_path / "archive" / "tiny" / "pilot.reading.md").write_text("It means nothing.\n")

    page = publish(tmp_path / "archive", tmp_path / "docs")
    assert page == (tmp_path / "docs" / "results.md").read_text()
    assert "## `evensphere reproduce pilot --scale tiny --seeds 1`\n\n### Reading\n\nIt means nothing.\n" in page
    rows = [line for line in (folder / "pilot.md").read_text().splitlines() if line.startswith("|")]
    section = page.partition("## `evensphere reproduce pilot")[2].partition("\n## ")[0]
    assert rows == [line for line in section.splitlines() if line.startswith("|")]
    pictures = [line.split("](")[1].rstrip(")") for line in section.splitlines() if line.startswith("![")]
    assert len(pictures) == 4
    assert all((tmp_path / "docs" / picture).stat().st_size > 10_000 for picture in pictures)


def test_the_committed_page_is_up_to_date(tmp_path: Path) -> None:
    page = publish(ROOT / "benchmarks" / "results", tmp_path / "docs")
    assert page == (ROOT / "docs" / "results.md").read_text(), "run `python -m evensphere.reproduce.publish`"
