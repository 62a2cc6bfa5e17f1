"""Lists of image files, by hand, by others and by ourselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.image_files import class_folders, locations, write

from evensphere.data.encoded import as_text
from evensphere.data.lists import listed, read_list
from evensphere.errors import InputError


def write_list(file: Path, *lines: str, end: str = "\n") -> Path:
    file.write_bytes("".join(line + end for line in lines).encode())
    return file


def test_a_list_with_labels_is_a_labelled_collection(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=3, owl=3)
    lines = [f"{name}/{i}.png {label}" for label, name in ((7, "owl"), (0, "dog"), (3, "cat")) for i in range(3)]
    splits = listed(write_list(tmp_path / "list.txt", *lines, "cat/3.png\t 3"))
    assert locations(splits.pretrain)[:4] == ["cat/0.png", "cat/1.png", "cat/2.png", "cat/3.png"], "whatever the lines"
    assert splits.pretrain.class_names == ("dog", "cat", "owl"), "by number, called as their folders are"
    assert splits.train_counts() == [3, 4, 3]
    assert splits.test is not None
    assert int(splits.pretrain.read(2)[0, 0, 0]) == 2


def test_lists_for_each_part(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", a=5, b=4)
    write_list(tmp_path / "train.txt", "a/0.png 0", "a/1.png 0", "b/0.png 1")
    for part, number in (("val", 2), ("test", 3), ("probe", 1)):
        write_list(tmp_path / f"{part}.txt", f"b/{number}.png 1", f"a/{number}.png 0")
    write_list(tmp_path / "names.txt", "ant", "bee", "cicada")
    splits = listed(
        tmp_path / "train.txt",
        root=tmp_path / "images",
        classes=tmp_path / "names.txt",
        validation=tmp_path / "val.txt",
        test=tmp_path / "test.txt",
        probe=tmp_path / "probe.txt",
    )
    assert splits.pretrain.class_names == ("ant", "bee")
    assert splits.train_counts() == [2, 1]
    assert splits.probe is not None
    assert splits.validation is not None
    assert splits.test is not None
    assert locations(splits.probe) == ["a/1.png", "b/1.png"]
    assert locations(splits.validation) == ["a/2.png", "b/2.png"]
    assert locations(splits.test) == ["a/3.png", "b/3.png"]
    labels = splits.test.labels()
    assert labels is not None
    assert labels.tolist() == [0, 1]
    assert int(splits.test.read(1)[0, 0, 0]) == 3
    imagenets = listed(tmp_path / "train.txt", root=tmp_path / "images", validation=tmp_path / "val.txt")
    assert imagenets.validation is None
    assert imagenets.test is not None
    assert imagenets.probe is imagenets.pretrain


def test_lists_as_people_write_them(tmp_path: Path) -> None:
    lines = ["\ufeff# comment", "", "my photos/a b.png 0", "  ", "c#.png   12  ", "#.png 0", "#", "1 2 3.png 0"]
    read = read_list(write_list(tmp_path / "list.txt", *lines, end="\r\n"))
    assert read.paths == ["my photos/a b.png", "c#.png", "#.png", "1 2 3.png"]
    assert read.labels == [0, 12, 0, 0]
    without = read_list(write_list(tmp_path / "list.txt", "a b.png", "2.png", "/elsewhere/c.png"))
    assert without.paths == ["a b.png", "2.png", "/elsewhere/c.png"]
    assert without.labels is None
    (tmp_path / "list.txt").write_bytes(b"\xff.png 0\nb.png 1")
    assert read_list(tmp_path / "list.txt").paths == [os.fsdecode(b"\xff.png"), "b.png"], "names need not be text"


# what a file system allows and an image file may be called, besides the dot at the end of names that we strip
NAMES = st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(lambda name: os.fsdecode(name) + ".png")


@settings(max_examples=50)
@given(st.lists(NAMES, min_size=1, unique=True), st.booleans())
def test_what_we_write_we_read(tmp_path_factory: pytest.TempPathFactory, names: list[str], labelled: bool) -> None:
    names = [name for name in names if not name.startswith("# ") and name != "#"]
    folder = tmp_path_factory.mktemp("lists")
    lines = [f"{as_text(name)} {i}" if labelled else as_text(name) for i, name in enumerate(names)]
    read = read_list(write_list(folder / "list.txt", *lines))
    assert read.paths == names
    assert read.labels == (list(range(len(names))) if labelled and names else None)
    (folder / "images.json").write_text(json.dumps({"images": [as_text(name) for name in names]}))
    assert read_list(folder / "images.json").paths == names


def test_a_name_with_a_newline_is_found_again(tmp_path: Path) -> None:
    for name in ("two\nlines.png", "one.png"):
        write(tmp_path / name)
    source = listed(write_list(tmp_path / "list.txt", r"two\x0alines.png", "one.png")).pretrain
    assert locations(source) == ["one.png", r"two\x0alines.png"]
    assert source.read(1).shape == (3, 6, 8)


def test_the_images_of_a_run_are_a_list(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", a=2)
    (tmp_path / "images.json").write_text(json.dumps({"images": ["a/1.png", "a/0.png"]}))
    source = listed(tmp_path / "images.json", root=tmp_path / "images").pretrain
    assert locations(source) == ["a/0.png", "a/1.png"]
    assert source.labels() is None


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["a.png 0", "b.png"], r"Line 2 of .*list\.txt has no label and other lines have one"),
        (["# x", "a.png 0", "b.png 1", "a.png 1"], r"a\.png is listed more than once, in lines 2 and 4 of"),
        (["a.png 0"], "holds one image"),
        ([], "holds no images"),
    ],
)
def test_lists_that_cannot_be_used_are_one_sentence(tmp_path: Path, lines: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        listed(write_list(tmp_path / "list.txt", *lines))


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read \(No such file"):
        listed(tmp_path / "nowhere.txt")
    for text in ("[1]", "{}", '{"images": "a.png"}', '{"images": [1]}', "no json", '{"images": ["\\ud800"]}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(InputError, match=r"x\.json cannot be read"):
            listed(tmp_path / "x.json")


def test_lists_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    train = write_list(tmp_path / "train.txt", "a.png 0", "b.png 1", "c.png 0", "d.png 5")
    with pytest.raises(InputError, match=r"test\.txt has no labels"):
        listed(train, test=write_list(tmp_path / "test.txt", "e.png"))
    with pytest.raises(
        InputError, match=r"e\.png in .* is of class '2', but training knows 3 classes \('0' \.\.\. '5'\)"
    ):
        listed(train, test=write_list(tmp_path / "test.txt", "e.png 2"))
    with pytest.raises(InputError, match="has a class 5, and the file of class names has 3 lines, for 0 to 2"):
        listed(train, classes=write_list(tmp_path / "names.txt", "x", "y", "z"))
    with pytest.raises(InputError, match="an empty line or a name twice"):
        listed(train, classes=write_list(tmp_path / "names.txt", "x", "y", "x"))
