"""A split on disk: lists for anybody, a card that gives the same parts again and notices what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.data.image_files import class_folders, locations
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.data.card import split, write_split
from evensphere.data.folder import folder
from evensphere.data.kinds import kind_of
from evensphere.data.partition import Division
from evensphere.data.table import table
from evensphere.disk import DiskError, atomic_write
from evensphere.errors import InputError


def made(root: Path, **division: Any) -> Path:
    images = str(class_folders(root / "images", ant=20, bee=30, cat=10))
    write_split("folder", {"path": images}, folder(images), Division(**division), root / "split")
    return root / "split"


def test_the_card_gives_the_same_parts_as_the_lists(tmp_path: Path) -> None:
    here = made(tmp_path, profile="exp", imbalance=5, validation=2, test=0.2, few_shot=(1, 3))
    card = json.loads((here / "card.json").read_text())
    splits = split(here)
    for name, part in {"train": splits.pretrain, "probe": splits.probe, "test": splits.test}.items():
        lines = (here / card["lists"][name]["file"]).read_text().splitlines()
        assert part is not None
        labels = part.labels()
        assert labels is not None
        assert lines == [f"{where} {c}" for where, c in zip(locations(part), labels.tolist(), strict=True)]
        assert card["lists"][name]["images"] == len(part) == sum(card["lists"][name]["counts"])
    assert list(card["lists"]) == ["train", "probe", "validation", "test", "probe-1", "probe-3"]
    assert splits.train_counts() == card["lists"]["train"]["counts"] == [9, 22, 4]
    assert kind_of(str(here)) == kind_of(str(here / "card.json")) == "split"


def test_a_split_moves_with_its_images(tmp_path: Path) -> None:
    made(tmp_path / "here", validation=2)
    (tmp_path / "here").rename(tmp_path / "there")
    splits = split(tmp_path / "there" / "split" / "card.json")
    assert splits.pretrain.read(0).shape[0] == 3
    assert splits.test is None


def test_every_path_in_the_card_moves_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "here" / "photos", ant=6, bee=6)
    rows = [f"{name}/{i}.png,{name}" for name in ("ant", "bee") for i in range(6)]
    (tmp_path / "here" / "rows.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path / "here")
    options: dict[str, Any] = {"path": "rows.csv", "root": "photos", "label_column": "label"}
    write_split("table", options, table(**options), Division(validation=1), Path("split"))
    (tmp_path / "here").rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "there" / "split")
    for place in ("there/split", "link"):
        splits = split(place)
        assert all(splits.pretrain.read(i).shape[0] == 3 for i in range(len(splits.pretrain)))


def fails_without_a_trace(tmp_path: Path, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        made(tmp_path)
    assert list((tmp_path / "split").iterdir()) == []


def test_a_split_that_failed_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("evensphere.data.card.draw_counts", full)
        fails_without_a_trace(tmp_path, OSError, "No space")
    assert split(made(tmp_path)).train_counts() == [20, 30, 10]


def test_a_card_that_failed_is_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in its place, and then its folder cannot be brought to the disk."""

    def broken_disk(path: Path, data: Any) -> None:
        atomic_write(path, data)
        if path.name == "card.json":
            raise DiskError(path, OSError(5, "Input/output error"))

    with monkeypatch.context() as broken:
        broken.setattr("evensphere.data.card.atomic_write", broken_disk)
        fails_without_a_trace(tmp_path, DiskError, "input/output error")
    assert split(made(tmp_path)).train_counts() == [20, 30, 10]


def test_a_picture_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    (tmp_path / "split" / "counts.png").write_text("mine")
    with pytest.raises(InputError, match=r"files like those of one \(counts\.png\); choose another --out"):
        made(tmp_path)
    assert [file.name for file in (tmp_path / "split").iterdir()] == ["counts.png"]
    assert (tmp_path / "split" / "counts.png").read_text() == "mine"


@pytest.mark.parametrize("root", ["photos", "~/photos"])
def test_paths_of_an_earlier_card_are_as_they_were_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    """But for the collection's own, which was relative to the card already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    class_folders(tmp_path / "photos", ant=6, bee=6)
    rows = [f"{name}/{i}.png,{name}" for name in ("ant", "bee") for i in range(6)]
    (tmp_path / "rows.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    options: dict[str, Any] = {"path": "rows.csv", "root": root}
    card = write_split("table", options, table(**options), Division(), Path("split"))
    assert card["format"] == 2
    assert card["source"]["options"] == {"path": "../rows.csv", "root": "../photos"}
    card |= {"format": 1, "source": {"name": "table", "options": {"path": "../rows.csv", "root": root}}}
    Path("split/card.json").write_text(json.dumps(card))
    splits = split("split")
    assert all(splits.pretrain.read(i).shape[0] == 3 for i in range(12))
    (tmp_path / "split" / "card.json").write_text(json.dumps(card | {"format": 3}))
    with pytest.raises(InputError, match="no card that this version of `evensphere split` wrote"):
        split("split")


def test_a_split_cannot_be_split(tmp_path: Path) -> None:
    here = str(made(tmp_path))
    with pytest.raises(InputError, match="is a split already"):
        write_split("split", {"path": here}, split(here), Division(), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_sources_own_test_images_are_kept(tmp_path: Path) -> None:
    class_folders(tmp_path / "images" / "train", ant=9, bee=9)
    class_folders(tmp_path / "images" / "test", ant=2, bee=1)
    images = str(tmp_path / "images")
    card = write_split("folder", {"path": images}, folder(images), Division(validation=2), tmp_path / "split")
    assert card["official"] == {"test": 3}
    test = split(tmp_path / "split").test
    assert test is not None
    assert locations(test) == ["test/ant/0.png", "test/ant/1.png", "test/bee/0.png"]


def test_the_picture_is_a_picture(tmp_path: Path) -> None:
    with Image.open(made(tmp_path, profile="exp") / "counts.png") as picture:
        assert picture.size[0] > 600


def test_changes_are_noticed(tmp_path: Path) -> None:
    here = made(tmp_path)
    listed = (here / "train.txt").read_text()
    (here / "train.txt").write_text(listed.replace("ant/0.png 0\n", ""))
    with pytest.raises(InputError, match="was changed since the split was made"):
        split(here)
    (here / "train.txt").write_text(listed)
    (tmp_path / "images" / "ant" / "3.png").unlink()
    with pytest.raises(InputError, match=r"1 of the 60 images .* the first being ant/3\.png"):
        split(here)
    (here / "card.json").write_text("{}")
    with pytest.raises(InputError, match="no card"):
        split(here)


def test_images_without_labels_cannot_be_divided(tmp_path: Path) -> None:
    class_folders(tmp_path, only=3)
    with pytest.raises(InputError, match="has no labels"):
        write_split("folder", {}, folder(tmp_path), Division(), tmp_path / "split")


def test_a_split_is_not_written_over(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(InputError, match="already holds a split"):
        made(tmp_path)


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["split", *(str(argument) for argument in arguments)])


def test_the_command_writes_and_says_what_it_wrote(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", ant=20, bee=30)
    (tmp_path / "counts").write_text("ant 3\n\nbee 7\n")
    result = run(images, "--out", tmp_path / "split", "--counts", tmp_path / "counts", "--few-shot", 2)
    assert result.exit_code == 0, result.output
    assert split(tmp_path / "split").train_counts() == [3, 7]
    assert "probe-2" in result.output
    assert f"--data {tmp_path / 'split'}" in result.output
    assert len((tmp_path / "split" / "probe-2.txt").read_text().splitlines()) == 4


def test_named_data_sets_can_be_divided(tmp_path: Path) -> None:
    result = run("digits", "--out", tmp_path, "--set", "imbalance=1", "--profile", "step", "--imbalance", 10)
    assert result.exit_code == 0, result.output
    splits = split(tmp_path)
    counts = splits.train_counts()
    assert counts is not None
    assert max(counts) // min(counts) == 10
    assert splits.test is not None
    assert len(splits.test) == 400


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("ant three\n", "Line 1 of .* 'CLASS COUNT'"),
        ("wolf 3\n", "Unknown class 'wolf'"),
        ("ant 21\n", "there are 20"),
        ("", "0 image"),
        ("ant 1\n", "1 image"),
    ],
)
def test_bad_counts_are_one_sentence(tmp_path: Path, lines: str, sentence: str) -> None:
    images = class_folders(tmp_path / "images", ant=20, bee=30)
    (tmp_path / "counts").write_text(lines)
    result = run(images, "--out", tmp_path / "split", "--counts", tmp_path / "counts")
    assert isinstance(result.exception, InputError)
    with pytest.raises(InputError, match=sentence):
        raise result.exception
    assert not (tmp_path / "split").exists()
