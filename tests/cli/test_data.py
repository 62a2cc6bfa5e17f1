"""`evensphere data`: the list, and what `data inspect` says, writes and refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from sklearn.datasets import load_sample_image
from tests.data.image_files import class_folders, write
from typer.testing import CliRunner, Result

from evensphere.cli.main import app
from evensphere.data import SOURCE_INFO
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.recipes.run import train


def evensphere(*arguments: str, width: int = 80) -> Result:
    return CliRunner(env={"COLUMNS": str(width)}).invoke(app, arguments)


def words(text: str) -> str:
    return " ".join(text.split())


def page(*arguments: str) -> str:
    done = evensphere("data", "inspect", *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


# --- the list ---------------------------------------------------------------------------------------------------------


def test_the_list_says_all_there_is_to_know_in_80_columns() -> None:
    done = evensphere("data")
    assert done.exit_code == 0
    printed = words(done.stdout)
    for name, info in SOURCE_INFO.items():
        assert name in printed
        for text in info:
            assert words(text) in printed
    assert max(map(cell_len, done.stdout.splitlines())) <= 80
    assert "evensphere data inspect PATH" in done.stdout


def test_the_list_and_the_help_load_no_torch() -> None:
    check = (
        "import sys; from evensphere.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
        "print('HEAVY' if {'torch', 'numpy'} & set(sys.modules) else 'light')"
    )
    for arguments in (["data"], ["data", "--help"], ["data", "inspect", "--help"]):
        done = subprocess.run([sys.executable, "-c", check, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.endswith("light\n"), arguments


# --- inspect ----------------------------------------------------------------------------------------------------------


def dirty(root: Path) -> Path:
    """Three classes, two of whose names are no fun; a burst; files that are no images."""
    china = Image.fromarray(load_sample_image("china.jpg")).resize((96, 64))
    for take in range(4):
        (root / "größe").mkdir(parents=True, exist_ok=True)
        china.save(root / "größe" / f"take {take}.jpg", quality=50 + 10 * take)
    for i in range(3):
        colours = np.random.RandomState(i).randint(0, 256, (4, 4, 3)).astype(np.uint8)
        (root / "cat\nand dog").mkdir(exist_ok=True)
        Image.fromarray(colours).resize((40 + i, 300)).save(root / "cat\nand dog" / f"[bold]{i}\t.png")
    write(root / "日本" / "one.gif", (1, 2, 3), (1, 1))
    for i in range(2):
        (root / "日本" / f"broken{i}.jpg").write_bytes(b"")
    return root


def test_the_page(tmp_path: Path) -> None:
    printed = page(str(dirty(tmp_path)))
    assert max(map(cell_len, printed.splitlines()[1:-1])) <= 80, "but for paths, in the first and the last line"
    lines = [line.rstrip() for line in printed.splitlines()]
    assert lines[0] == f"{tmp_path}: 10 images (folder)"
    text = words(printed)
    for sentence in (
        "files JPEG 4, PNG 3, GIF 1 (RGB 7, P 1)",
        "1 x 1 to 42 x 300",
        "classes 3, of 4 to 1 images to pretrain on; imbalance 4",
        "many: 4 images in 1 class",
        "few: 1 image in 1 class",
        "look alike 4 images in 1 group of near-duplicates; training counts each once",
        "4 images, such as größe/take 0.jpg größe/take 1.jpg größe/take 2.jpg",
        "broken 2 of 10 images cannot be read 日本/broken0.jpg: the file is empty",
        f"Next: evensphere train folder --data {tmp_path}",
    ):
        assert sentence in text, sentence
    bars = {
        line.split("█")[0].split()[-1]: line.count("█") for line in lines if line.endswith((" 4", " 3")) and "█" in line
    }
    assert bars["größe"] > bars["dog"] > 0.7 * bars["größe"]
    assert r"cat\x0aand dog" in text, "in one line"


def test_what_it_says_to_do_next_can_be_done(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "two words", cat=3, dog=3)
    command = page(str(images)).splitlines()[-1].removeprefix("Next: evensphere train folder --data ")
    assert command == f"'{images}'"
    assert with_data(get_recipe("folder"), str(images)).data.options == {"path": str(images)}


SCHEMA: dict[str, Any] = {
    "kind": str, "paths": [str], "name": str, "images": int, "readable": int, "parts": {str: int},
    "broken": [{"path": str, "reason": str}], "formats": {str: int}, "modes": {str: int}, "channels": int,
    "sizes": {
        "median": [int], "smallest": [int], "largest": [int], "decoded_bytes": int,
        "short_sides": [{"up_to": (int, type(None)), "images": int}],
    },
    "classes": {"names": [str], "counts": [int], "imbalance": float, "rule": str, "groups": [str]},
    "near_duplicates": {
        "distance": int, "images": int, "groups": [[str]], "crossing_parts": int, "own_groups": type(None),
    },
}  # fmt: skip


def check(value: Any, schema: Any, where: str = "") -> None:
    if isinstance(schema, list):
        assert isinstance(value, list), where
        for item in value:
            check(item, schema[0], where)
    elif isinstance(schema, dict) and set(schema) == {str}:
        assert isinstance(value, dict), where
        for item in value.values():
            check(item, schema[str], where)
    elif isinstance(schema, dict):
        assert set(value) == set(schema), where
        for name, item in value.items():
            check(item, schema[name], f"{where}.{name}")
    else:
        assert isinstance(value, schema), where


def test_what_it_writes(tmp_path: Path) -> None:
    images, out = dirty(tmp_path / "images"), tmp_path / "new" / "out"
    printed = page(str(images), "--out", str(out))
    assert "Written:" in printed
    assert sorted(file.name for file in out.iterdir()) == ["contact_sheet.png", "inspection.json", "skipped.csv"]
    content = json.loads((out / "inspection.json").read_text())
    check(content, SCHEMA)
    assert content["kind"] == "folder"
    assert content["classes"]["groups"] == ["medium", "many", "few"]
    assert content["near_duplicates"]["groups"] == [[f"größe/take {take}.jpg" for take in range(4)]]
    with (out / "skipped.csv").open(newline="") as file:
        skipped = list(csv.reader(file))
    assert skipped == [["path", "reason"], *([f"日本/broken{i}.jpg", "the file is empty"] for i in range(2))]
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size[1] > 2 * 132
    again = tmp_path / "again"
    page(str(images), "--out", str(again))
    for name in ("contact_sheet.png", "inspection.json"):
        assert (again / name).read_bytes() == (out / name).read_bytes(), "the same images give the same picture"


def test_without_out_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = class_folders(tmp_path / "images", cat=2, dog=2)
    monkeypatch.chdir(tmp_path)
    page("images")
    assert [path.name for path in tmp_path.iterdir()] == [images.name]


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.png", (80 * i, 0, 0))
    text = words(page(str(tmp_path), "--out", str(tmp_path / "out")))
    assert "classes none: the images have no labels, which only evaluation needs" in text
    assert "look alike no near-duplicates" in text
    assert "broken none" in text
    assert json.loads((tmp_path / "out" / "inspection.json").read_text())["classes"] is None


@pytest.mark.parametrize("good", [0, 1])
def test_a_mostly_broken_folder_is_described_and_no_training_is_suggested(tmp_path: Path, good: int) -> None:
    for i in range(14):
        (tmp_path / f"{i:02}.jpg").write_text("no picture")
    if good:
        write(tmp_path / "good.png")
    out = tmp_path / "out"
    printed = page(str(tmp_path), "--out", str(out))
    assert words(printed).count("not an image") == 10, "the first ten"
    assert "... 4 more" in printed
    assert "training refuses so many" in printed
    assert str(out / "skipped.csv") in printed
    assert "evensphere train" not in printed
    assert len((out / "skipped.csv").read_text().splitlines()) == 15, "all of them"
    with pytest.raises(InputError, match="cannot be read"):
        train(with_data(get_recipe("folder"), str(tmp_path)), tmp_path / "run")


def test_many_classes_are_shown_by_their_ends(tmp_path: Path) -> None:
    class_folders(tmp_path, **{f"class{c:02}": 14 - c for c in range(13)})
    lines = [line.strip() for line in page(str(tmp_path)).splitlines()]
    shown = [line.split()[0] for line in lines if line.startswith("class") and "█" in line]
    assert shown == [f"class{c:02}" for c in (*range(5), *range(8, 13))]
    assert "... 3 classes between ..." in lines


def test_official_parts_and_test_images_that_were_seen(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for i in range(4):
            colours = np.random.RandomState(i if (part, i) != ("test", 3) else 0).randint(0, 256, (5, 5))
            file = tmp_path / part / f"class{i % 2}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            taken = Image.fromarray(colours.astype(np.uint8)).resize((50, 50))
            (taken if part == "train" or i == 3 else taken.rotate(90)).save(file)
    text = words(page(str(tmp_path)))
    assert "parts pretrain 4, test 4" in text
    assert "1 group with images of several parts" in text


def test_a_data_set_by_name_and_an_option(tmp_path: Path) -> None:
    text = words(page("digits", "--set", "imbalance=2"))
    assert "digits: 1,797 images (digits)" in text
    assert "training counts each once" not in text, "the images of a named data set are taken as they are"
    assert "Next: evensphere recipes" in text
    class_folders(tmp_path, cat=2, dog=2)
    assert "read with 1 channel," in words(page(str(tmp_path), "--set", "channels=1"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["/nowhere"], "no folder /nowhere"),
        (["FOLDER"], "holds one image"),
        (["FOLDER", "--set", "chanels=1"], "did you mean 'channels'"),
        (["FOLDER", "--set", "channels"], "NAME=VALUE"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    write(tmp_path / "0.png")
    done = evensphere("data", "inspect", *(str(tmp_path) if one == "FOLDER" else one for one in arguments))
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1


@pytest.mark.parametrize("arguments", [["inspect"], ["inspct", "x"]])
def test_a_command_that_is_none_ends_with_2(arguments: list[str]) -> None:
    assert evensphere("data", *arguments).exit_code == 2
