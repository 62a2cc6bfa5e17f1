"""Which source reads which path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evensphere.data.kinds import OWN, kind_of


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("train.txt", "list"),
        ("some/where/train.LST", "list"),
        ("runs/mine/images.json", "list"),
        ("rows.csv", "table"),
        ("rows.parquet", "table"),
        ("images.zip", "archive"),
        ("images.tar.gz", "archive"),
        ("images.tar", "archive"),
        ("train-{000..099}.tar", "shards"),
        ("shards/*.tar", "shards"),
        ("train-{000..099}.tgz", "shards"),
        ("scans/**/*.npy", "folder"),
        ("https://example.org/train.tar", "shards"),
        ("x.npy", "array"),
        ("x.npz", "array"),
        ("hf://owner/name", "hub"),
        ("photos/*.jpg", "folder"),
        ("nowhere", "folder"),
    ],
)
def test_a_path_tells_its_kind(path: str, kind: str) -> None:
    assert kind in OWN
    assert kind_of(path) == kind


def test_a_folder_tells_its_kind_by_what_it_holds(tmp_path: Path) -> None:
    assert kind_of(str(tmp_path)) == "folder"
    (tmp_path / "a.tar").touch()
    (tmp_path / ".hidden").touch()
    assert kind_of(str(tmp_path)) == "shards"
    (tmp_path / "a.jpg").touch()
    assert kind_of(str(tmp_path)) == "folder"
    (tmp_path / "dataset_info.json").touch()
    assert kind_of(str(tmp_path)) == "hub"


def test_a_folder_with_a_files_ending_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").mkdir()
    assert kind_of(str(tmp_path / "photos.zip")) == "folder"


def test_brackets_in_a_path_make_no_pattern_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "[2024]").mkdir()
    (file := tmp_path / "[2024]" / "photos.tar").touch()
    assert kind_of(str(file)) == "archive"


def test_telling_needs_no_torch() -> None:
    code = "import sys, evensphere.data.kinds; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
