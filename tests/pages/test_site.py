"""The site builds without a warning and needs nothing from anywhere else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.pages.reading import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    """Links may lead away; scripts, styles, fonts and pictures may not."""
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    loaded = (
        r"""(?:<(?:script|img|iframe)[^>]*\ssrc=|<link[^>]*rel=["']?(?:stylesheet|preconnect|icon)[^>]*href=|url\()"""
    )
    for file in files:
        assert not re.findall(loaded + r"""["']?(?:https?:)?//[^"')\s>]+""", file.read_text()), file


@pytest.mark.slow
def test_every_page_of_the_menu_is_there(site: Path) -> None:
    """What the front page's menu links to was built."""
    front = (site / "index.html").read_text()
    linked = {link.partition("#")[0] for link in re.findall(r'<a href="([^":]+)" class="md-nav__link', front)}
    assert len(linked) > 15
    assert [link for link in linked if link and not (site / link).exists()] == []


@pytest.mark.slow
def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[gone](gone.md), [too](#nowhere)\n")
    settings = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(settings)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "gone.md" in done.stderr
    assert "nowhere" in done.stderr
