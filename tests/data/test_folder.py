"""Folders as they are found: one order everywhere, splits by folder name."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.image_files import class_folders, locations, write

from evensphere.data.encoded import as_path, as_text
from evensphere.data.folder import folder
from evensphere.data.scan import scan
from evensphere.data.source import Splits, Subset, take
from evensphere.errors import InputError


def test_files_are_listed_in_the_order_of_their_bytes(tmp_path: Path) -> None:
    names = ["b.png", "B.png", "a/1.png", "a-b/1.png", "a/10.png", "a/2.png", "é.png", "z z.PNG", "a/x/1.jpeg"]
    for name in names:
        write(tmp_path / name)
    expected = ["B.png", "a-b/1.png", "a/1.png", "a/10.png", "a/2.png", "a/x/1.jpeg", "b.png", "z z.PNG", "é.png"]
    assert locations(folder(tmp_path).pretrain) == expected


def test_the_file_systems_order_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, b=3, a=3, c=3)
    expected = locations(folder(tmp_path).pretrain)
    listed = os.scandir
    monkeypatch.setattr(os, "scandir", lambda top: reversed(list(listed(top))))
    assert locations(folder(tmp_path).pretrain) == expected


def test_hidden_and_other_files_are_ignored(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", ".hidden.png", ".cache/b.png", "__MACOSX/._a.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.png").mkdir()
    assert locations(folder(tmp_path).pretrain) == ["a.png", "b.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_text_can_still_be_written_down(tmp_path: Path) -> None:
    for name in (b"\xff.png", b"two\nlines.png", "\u00fcber.png".encode(), b"back\\slash.png", rb"\x41.png"):
        write(tmp_path / "any.png").rename(tmp_path / os.fsdecode(name))
    source = folder(tmp_path).pretrain
    assert locations(source) == [r"\x5cx41.png", r"back\slash.png", r"two\x0alines.png", "\u00fcber.png", r"\xff.png"]
    assert [source.read(i).shape for i in range(5)] == [(3, 6, 8)] * 5


@given(st.binary().map(os.fsdecode))
def test_every_name_can_be_written_in_one_line_and_read_back(name: str) -> None:
    written = as_text(name)
    assert as_path(written) == name
    assert len(f"{written}.".splitlines()) == 1
    assert written.encode().decode() == written


@given(st.lists(st.sampled_from(["\\", "x", "5", "c", "a", "\n", "\udcff", "\u2028", "\u00e9"])).map("".join))
def test_what_looks_like_an_escape_is_read_back_too(name: str) -> None:
    assert as_path(as_text(name)) == name


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "1.png")
    write(tmp_path / "images" / "a" / "1.png")
    (tmp_path / "images" / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "images" / "a" / "up").symlink_to(tmp_path / "images", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "images", target_is_directory=True)
    assert locations(folder(tmp_path / "images").pretrain) == ["a/1.png", "b/1.png"]


def test_a_dangling_link_is_listed_and_unreadable(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    write(tmp_path / "a.png")
    assert scan(folder(tmp_path).pretrain) == [(1, "No such file or directory")]


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
    write(tmp_path / "one" / "b.png")
    with pytest.raises(InputError, match="channels = 0 was given"):
        folder(file.parent, channels=0)
    with pytest.raises(InputError, match="bits = 12 was given"):
        folder(file.parent, bits=12)

    def refuse(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="cannot be listed"):
        folder(file.parent)


# Several roots, patterns, dirt


def test_several_roots_are_one_collection(tmp_path: Path) -> None:
    class_folders(tmp_path / "b", cat=2, dog=1)
    class_folders(tmp_path / "a", cat=1, owl=1)
    splits = folder([str(tmp_path / "b"), str(tmp_path / "a")])
    assert locations(splits.pretrain) == ["a/cat/0.png", "a/owl/0.png", "b/cat/0.png", "b/cat/1.png", "b/dog/0.png"]
    assert splits.pretrain.class_names == ("cat", "dog", "owl")
    assert splits.train_counts() == [3, 1, 1]
    assert [int(splits.pretrain.read(i)[0, 0, 0]) for i in range(5)] == [0, 0, 0, 1, 0]


def test_roots_of_one_name_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    for name in ("2024/photos/1.png", "2025/photos/1.png"):
        write(tmp_path / name)
    source = folder([str(tmp_path / "2025" / "photos"), str(tmp_path / "2024" / "photos")]).pretrain
    assert locations(source) == ["2024/photos/1.png", "2025/photos/1.png"]


def test_roots_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "divided" / "train", a=2, b=2)
    class_folders(tmp_path / "divided" / "test", a=1)
    class_folders(tmp_path / "more", a=2)
    with pytest.raises(InputError, match=r"divided is divided into train and test and .*more is not"):
        folder([str(tmp_path / "divided"), str(tmp_path / "more")])
    with pytest.raises(InputError, match=r"more lies in .*, so its images would count twice"):
        folder([str(tmp_path / "more"), str(tmp_path)])


def test_a_pattern_chooses_files_and_folders(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "x/b.jpg", "x/y/c.jpg", "x/y/c.png", "2024/d.jpg", "2025/z/e.jpg", "[old]/f.jpg"):
        write(tmp_path / name)
    (tmp_path / "x" / "up").symlink_to(tmp_path, target_is_directory=True)

    def found(*patterns: str) -> list[str]:
        return locations(folder([str(tmp_path / pattern) for pattern in patterns]).pretrain)

    assert found("**/*.jpg") == ["2024/d.jpg", "2025/z/e.jpg", "[old]/f.jpg", "a.jpg", "x/b.jpg", "x/y/c.jpg"]
    (tmp_path / "x" / "up").unlink()
    assert found("*.*") == ["a.jpg", "a.png"]
    assert found("202?") == ["2024/d.jpg", "2025/z/e.jpg"]
    assert found("x/**") == ["b.jpg", "y/c.jpg", "y/c.png"]
    assert found("*/*.jpg", "*/y/*") == ["2024/d.jpg", "[old]/f.jpg", "x/b.jpg", "x/y/c.jpg", "x/y/c.png"]
    write(tmp_path / "[old]" / "g.jpg")
    assert found("[old]") == ["f.jpg", "g.jpg"], "a folder of that very name is no pattern"
    with pytest.raises(InputError, match=r"No image file .* fits .*\*\.webp; check the path"):
        found("**/*.webp")


def refusing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Folders of these names cannot be listed, whoever asks (root may list everything)."""
    listed = os.scandir

    def refuse(top: str) -> object:
        if Path(top).name in names:
            raise PermissionError(13, "Permission denied")
        return listed(top)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_folder_that_cannot_be_listed_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path, a=3, b=3, c=3)
    refusing(monkeypatch, "b")
    splits = folder(tmp_path)
    assert splits.train_counts() == [3, 3]
    assert splits.pretrain.unlisted == (("b/", "Permission denied"),)
    assert take(splits.pretrain, torch.tensor([0, 4])).unlisted == (("b/", "Permission denied"),)


def test_test_images_do_not_become_training_images_because_train_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "train", a=3, b=3)
    class_folders(tmp_path / "test", a=3, b=3)
    refusing(monkeypatch, "train")
    with pytest.raises(InputError, match=r"no images; .* the first being train/ \(Permission denied\)"):
        folder(tmp_path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    class_folders(tmp_path, a=2)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    (tmp_path / "self.png").symlink_to("self.png")
    source = folder(tmp_path).pretrain
    assert locations(source) == ["a/0.png", "a/1.png", "self.png"]
    assert sorted(source.unlisted) == [(name, "neither a file nor a folder") for name in ("link.png", "pipe.png")]
    assert scan(source) == [(2, "Too many levels of symbolic links")]


def test_files_that_vanish_are_skipped_with_the_reason(tmp_path: Path) -> None:
    source = folder(class_folders(tmp_path, a=3)).pretrain
    (tmp_path / "a" / "1.png").unlink()
    assert scan(source) == [(1, "No such file or directory")]


def test_folders_may_be_groups(tmp_path: Path) -> None:
    for name in ("cat/track1/1.png", "cat/track1/2.png", "cat/track2/1.png", "dog/track1/1.png", "dog/0.png"):
        write(tmp_path / name)
    groups = folder(tmp_path, groups="folder").pretrain.groups()
    assert groups is not None
    assert groups.tolist() == [0, 0, 1, 2, 3]
    assert folder(tmp_path).pretrain.groups() is None


# Labels and splits


def test_labels_are_the_first_folders_names(tmp_path: Path) -> None:
    for name in ("dog/1.png", "cat/deep/1.png", "cat/2.png", "Zebra/1.png"):
        write(tmp_path / name)
    source = folder(tmp_path).pretrain
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


def test_class_folders_are_split_by_class(tmp_path: Path) -> None:
    splits = folder(class_folders(tmp_path, a=10, b=5, c=3, d=1))
    assert splits.train_counts() == [10, 5, 3, 1]
    parts = {name: part for name, part in splits._asdict().items() if isinstance(part, Subset)}
    counts = {name: Splits(part).train_counts() for name, part in parts.items()}
    assert counts == {"probe": [6, 3, 1, 1], "validation": [2, 1, 1, 0], "test": [2, 1, 1, 0]}
    apart = [name for part in parts.values() for name in locations(part)]
    assert sorted(apart) == sorted(locations(splits.pretrain))
    assert locations(folder(tmp_path, seed=1).test or splits.pretrain) != locations(parts["test"])


def test_too_few_images_of_a_class_to_split(tmp_path: Path) -> None:
    splits = folder(class_folders(tmp_path, a=10, b=2))
    assert splits.train_counts() == [10, 2]
    assert splits.test is None


@pytest.mark.parametrize("validation", ["val", "validation", "valid", "dev", None])
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
