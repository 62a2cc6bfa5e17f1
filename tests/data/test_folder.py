"""Folders as they are found: one order everywhere, splits by folder name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tests.data.image_files import class_folders, locations, write

from evensphere.data.folder import FolderSource, folder, labelled
from evensphere.data.scan import scan
from evensphere.data.source import Splits, Subset
from evensphere.errors import InputError


def test_files_are_listed_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["b.png", "B.png", "a/1.png", "a-b/1.png", "a/10.png", "a/2.png", "é.png", "z z.PNG", "a/x/1.jpeg"]
    for name in names:
        write(tmp_path / name)
    expected = ["B.png", "a-b/1.png", "a/1.png", "a/10.png", "a/2.png", "a/x/1.jpeg", "b.png", "z z.PNG", "é.png"]
    assert locations(FolderSource(tmp_path)) == expected


def test_the_file_systems_order_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, b=3, a=3, c=3)
    expected = locations(FolderSource(tmp_path))
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda top: reversed(list(listed(top))))
    assert locations(FolderSource(tmp_path)) == expected


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    for name in (".hidden.png", ".cache/b.png", "__MACOSX/._a.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert locations(FolderSource(tmp_path)) == ["a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_text_can_still_be_written_down(tmp_path: Path) -> None:
    write(tmp_path / "ok.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    source = FolderSource(tmp_path)
    assert locations(source) == [r"\xff.png"]
    assert source.read(0).shape == (3, 6, 8)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png")
    write(tmp_path / "images" / "a" / "1.png")
    (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "images" / "a" / "up").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images", target_is_directory=True)
    assert locations(FolderSource(tmp_path / "images")) == ["a/1.png", "b/1.png"]


def test_a_dangling_link_is_listed_and_unreadable(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    write(tmp_path / "a.png")
    assert scan(FolderSource(tmp_path)) == [(1, "No such file or directory")]


def test_paths_that_hold_no_images_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        folder(tmp_path / "missing")
    file = write(tmp_path / "one" / "a.png")
    with pytest.raises(InputError, match="is a file; give the folder"):
        folder(file)
    with pytest.raises(InputError, match="at least two"):
        folder(file.parent)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no image files \(\.jpg"):
        folder(tmp_path / "empty")
    with pytest.raises(InputError, match="channels = 0 was given"):
        folder(file.parent, channels=0)
    with pytest.raises(InputError, match="bits = 12 was given"):
        folder(file.parent, bits=12)

    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be listed"):
        folder(file.parent)


# Labels and splits


def test_labels_are_the_first_folders_names(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/deep/1.png", "cat/2.png", "Zebra/1.png"):
        write(tmp_path / name)
    source = FolderSource(tmp_path)
    assert source.class_names == ("Zebra", "cat", "dog")
    labels = source.labels()
    assert labels is not None
    assert dict(zip(locations(source), labels.tolist(), strict=True)) == {
        "Zebra/1.png": 0,
        "cat/2.png": 1,
        "cat/deep/1.png": 1,
        "dog/1.png": 2,
    }


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["a/1.png", "b/1.png", "3.png"], ["a/1.png", "a/b/2.png"]])
def test_other_folders_have_no_labels(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path / name)
    splits = folder(tmp_path)
    assert splits == Splits(splits.pretrain)
    assert splits.pretrain.labels() is None
    assert splits.pretrain.class_names is None
    with pytest.raises(InputError, match="has no labels to evaluate with"):
        labelled(tmp_path)


def test_class_folders_are_split_by_class(tmp_path: Path) -> None:
    splits = folder(class_folders(tmp_path, a=10, b=5, c=3, d=1))
    assert splits.train_counts() == [10, 5, 3, 1]
    parts = {name: part for name, part in splits._asdict().items() if isinstance(part, Subset)}
    counts = {name: Splits(part).train_counts() for name, part in parts.items()}
    assert counts == {"probe": [6, 3, 1, 1], "validation": [2, 1, 1, 0], "test": [2, 1, 1, 0]}
    apart = [name for part in parts.values() for name in locations(part)]
    assert sorted(apart) == sorted(locations(splits.pretrain))
    assert labelled(tmp_path).train_counts() == [10, 5, 3, 1]
    assert locations(folder(tmp_path, seed=1).test or splits.pretrain) != locations(parts["test"])


def test_too_few_images_of_a_class_to_split(tmp_path: Path) -> None:
    splits = folder(class_folders(tmp_path, a=10, b=2))
    assert splits.train_counts() == [10, 2]
    assert splits.test is None
    with pytest.raises(InputError, match="three images or more in at least two classes"):
        labelled(tmp_path)


@pytest.mark.parametrize("validation", ["val", "validation", None])
def test_official_splits_are_kept(tmp_path: Path, validation: str | None) -> None:
    class_folders(tmp_path / "train", dog=3, cat=4)
    class_folders(tmp_path / "test", dog=2)  # one class only: its label is still the training's
    if validation:
        class_folders(tmp_path / validation, cat=1)
    splits = folder(tmp_path)
    assert splits.probe is splits.pretrain
    assert splits.pretrain.class_names == ("cat", "dog")
    assert splits.train_counts() == [4, 3]
    assert splits.test is not None
    assert locations(splits.test) == ["test/dog/0.png", "test/dog/1.png"]
    labels = splits.test.labels()
    assert labels is not None
    assert labels.tolist() == [1, 1]
    assert splits.test.read(1)[0, 0, 0] == 1
    assert (splits.validation is None) == (validation is None)
    if splits.validation is not None:
        assert locations(splits.validation) == [f"{validation}/cat/0.png"]


def test_train_and_val_alone_are_read_as_imagenets(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=2, b=2)
    class_folders(tmp_path / "val", a=1, b=1)
    splits = folder(tmp_path)
    assert splits.validation is None
    assert splits.test is not None
    assert locations(splits.test) == ["val/a/0.png", "val/b/0.png"]


def test_classes_that_training_lacks_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", a=3, b=3)
    class_folders(tmp_path / "test", a=1, wolf=1)
    with pytest.raises(InputError, match="of class 'wolf', but training knows 2 classes"):
        folder(tmp_path)
    (tmp_path / "test" / "wolf" / "0.png").rename(tmp_path / "test" / "0.png")
    with pytest.raises(InputError, match="in no class folder"):
        folder(tmp_path)


def test_official_splits_without_labels_only_train(tmp_path: Path) -> None:
    for name in ("train/1.png", "train/2.png", "test/a/1.png", "test/b/1.png"):
        write(tmp_path / name)
    splits = folder(tmp_path)
    assert locations(splits.pretrain) == ["train/1.png", "train/2.png"]
    assert splits[1:4] == (None, None, None)
