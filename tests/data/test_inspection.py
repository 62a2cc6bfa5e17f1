"""A look into a collection, against collections whose contents are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.image_files import class_folders, recorded_reads, write

from evensphere.data.contact_sheet import COLUMNS, draw_contact_sheet
from evensphere.data.digits import digits
from evensphere.data.encoded import FileSource
from evensphere.data.folder import folder
from evensphere.data.inspection import Inspection, inspect, sample
from evensphere.data.source import ArraySource, Source, Splits, take


def picture(number: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Every number another picture."""
    colours = np.random.RandomState(number).randint(0, 256, (5, 5, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize(size)


def save(file: Path, number: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture(number, size).convert(mode).save(file)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Class folders of 6, 3 and 1 readable images, with names that are no fun, and three files that are no images."""
    for i in range(3):
        save(tmp_path / "größe" / f"a{i}.jpg", i)
        save(tmp_path / "größe" / f"b{i}\n.png", 0, (80 + i, 60))  # the same as a0, larger
    save(tmp_path / "cat" / "0.pgm", 3, mode="L")
    save(tmp_path / "cat" / "1.png", 4, (300, 3))
    save(tmp_path / "cat" / "2.png", 5, mode="RGBA")
    save(tmp_path / "日本" / "only.webp", 6, (1, 1))
    for name in ("größe/c.jpg", "cat/x[bold].png", "日本/leer.bmp"):
        (tmp_path / name).write_text("no picture" if "leer" not in name else "")
    return tmp_path


def locations(inspection: Inspection, numbers: list[int]) -> list[str]:
    return [inspection.source.location(i) for i in numbers]


def test_everything_is_counted(mixed: Path) -> None:
    found = inspect(folder(mixed), "mine", workers=3)
    assert found.source.name == "mine"
    assert found.parts == {"pretrain": 13}
    assert found.broken == [
        ("cat/x[bold].png", "not an image, or of a kind Pillow cannot read"),
        ("größe/c.jpg", "not an image, or of a kind Pillow cannot read"),
        ("日本/leer.bmp", "the file is empty"),
    ]
    assert len(found.readable) == 10
    assert found.formats == {"PNG": 5, "JPEG": 3, "PPM": 1, "WEBP": 1}
    assert found.modes == {"RGB": 8, "L": 1, "RGBA": 1}
    assert found.sizes is not None
    assert found.sizes.median == (40, 30)
    assert found.sizes.smallest == (1, 1)
    assert found.sizes.largest == (82, 60)
    assert found.sizes.short_sides == (7, 3, 0, 0, 0, 0, 0, 0)
    assert found.sizes.decoded_bytes == 3 * (5 * 40 * 30 + 60 * (80 + 81 + 82) + 300 * 3 + 1)
    assert found.classes is not None
    assert dict(zip(found.classes.names, found.classes.counts, strict=True)) == {"cat": 3, "größe": 6, "日本": 1}
    assert found.classes.imbalance == 6
    assert [locations(found, burst) for burst in found.bursts] == [
        ["größe/a0.jpg", *(found.source.location(i) for i in range(13) if "/b" in found.source.location(i))]
    ]
    assert found.crossing == 0
    assert found.own_groups is None


def test_it_can_be_written_down(mixed: Path) -> None:
    found = inspect(folder(mixed))
    content = json.loads(json.dumps(found.to_json()))
    assert {name: type(value).__name__ for name, value in content.items()} == {
        "name": "str", "images": "int", "readable": "int", "parts": "dict", "broken": "list", "formats": "dict",
        "modes": "dict", "channels": "int", "sizes": "dict", "classes": "dict", "near_duplicates": "dict",
    }  # fmt: skip
    assert content["broken"][2] == {"path": "日本/leer.bmp", "reason": "the file is empty"}
    assert content["sizes"]["median"] == [40, 30]
    assert content["sizes"]["short_sides"][0] == {"up_to": 32, "images": 7}
    assert content["sizes"]["short_sides"][-1] == {"up_to": None, "images": 0}
    names = ["cat", "größe", "日本"]
    assert content["classes"] == {"names": names, "counts": [3, 6, 1], "imbalance": 6, "rule": "thirds"}
    duplicates = content["near_duplicates"]
    assert (duplicates["distance"], duplicates["images"], duplicates["crossing_parts"]) == (6, 4, 0)
    assert duplicates["groups"] == [locations(found, found.bursts[0])]
    assert duplicates["own_groups"] is None


def test_each_image_is_decoded_once_and_the_threads_change_nothing(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = recorded_reads(monkeypatch)
    seen: list[tuple[int, int]] = []
    one = inspect(folder(mixed), workers=1, progress=lambda done, total: seen.append((done, total)))
    assert sorted(reads) == list(range(13))
    assert seen == [(13, 13)]
    assert inspect(folder(mixed), workers=4).to_json() == one.to_json()


def test_parts_hold_each_image_once_and_copies_across_them_are_noticed(tmp_path: Path) -> None:
    """An image to test on that was seen in pretraining, resized: the classic leak."""
    for i in range(6):
        save(tmp_path / "train" / f"class{i % 2}" / f"{i}.png", i)
        save(tmp_path / "test" / f"class{i % 2}" / f"{i}.png", 10 + i)
    save(tmp_path / "test" / "class0" / "copy.png", 4, (90, 70))
    save(tmp_path / "train" / "class0" / "take.jpg", 2)
    found = inspect(folder(tmp_path))
    assert found.parts == {"pretrain": 7, "test": 7}
    assert [locations(found, burst) for burst in found.bursts] == [
        ["train/class0/2.png", "train/class0/take.jpg"],
        ["train/class0/4.png", "test/class0/copy.png"],
    ]
    assert found.crossing == 1
    assert found.classes is not None
    assert found.classes.counts == (4, 3), "of the images to pretrain on"


def test_a_collection_in_memory_and_its_subsets(tmp_path: Path) -> None:
    splits = digits(imbalance=20)
    assert splits.probe is not None
    found = inspect(splits)
    assert found.parts == {"pretrain": 383, "probe": len(splits.probe) - 383, "validation": 200, "test": 400}
    assert len(found.source) == 1797
    assert len({found.source.location(i) for i in range(1797)}) == 1797
    assert (found.formats, found.modes) == ({}, {}), "no files"
    assert found.sizes is not None
    assert found.sizes[:3] == ((8, 8),) * 3
    assert found.sizes.decoded_bytes == 1797 * 64
    assert found.classes is not None
    assert list(found.classes.counts) == splits.train_counts()
    place = int(found.source.within(1000)[1])
    part = found.source.within(1000)[0]
    assert found.source.read(1000).equal(part.read(place))


def test_images_without_labels_and_those_with_groups_of_their_own(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", i)
    source = FileSource("own", tmp_path, [f"{i}.png" for i in range(5)], groups=torch.tensor([0, 1, 0, 0, 1]))
    found = inspect(Splits(source))
    assert found.classes is None
    assert found.to_json()["classes"] is None
    assert found.own_groups == 2
    assert found.bursts == []


def test_a_subset_of_files_tells_the_right_formats(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 0)
    save(tmp_path / "b.jpg", 1)
    save(tmp_path / "c.gif", 2)
    source = take(take(FileSource("own", tmp_path, ["a.png", "b.jpg", "c.gif"]), torch.tensor([2, 1])), torch.arange(1))
    assert inspect(Splits(source)).formats == {"GIF": 1}


@pytest.mark.parametrize("good", [0, 1])
def test_mostly_broken_collections_are_described_too(tmp_path: Path, good: int) -> None:
    for i in range(7):
        (tmp_path / f"{i}.jpg").write_text("no picture")
    for i in range(good):
        save(tmp_path / f"good{i}.png", i)
    found = inspect(folder(tmp_path))
    assert len(found.broken) == 7
    assert len(found.readable) == good
    assert (found.sizes is None) == (good == 0)
    assert found.bursts == []
    draw_contact_sheet(found, tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").width > 1000


def test_classes_of_which_nothing_can_be_read_are_counted_as_empty(tmp_path: Path) -> None:
    class_folders(tmp_path, cat=4, dog=2)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "0.png").write_text("no picture")
    found = inspect(folder(tmp_path))
    assert found.classes is not None
    assert found.classes.counts == (4, 2, 0)
    assert found.classes.imbalance == 2


# --- the picture ------------------------------------------------------------------------------------------------------


def opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.load()
        return image


def one_colour(count: int, channels: int = 3) -> Source:
    """Images of one colour each: (i, 0, 0), blown up by the sheet."""
    images = torch.zeros(count, channels, 4, 4, dtype=torch.uint8)
    images[:, 0] = torch.arange(count).mul(3)[:, None, None]
    return ArraySource("colours", images)


def test_the_sheet_shows_the_sample_in_its_places(tmp_path: Path) -> None:
    found = inspect(Splits(one_colour(80)))
    chosen = sample(found)
    assert len(chosen) == 64
    assert chosen == sorted(set(chosen))
    assert chosen != list(range(64)), "from everywhere"
    draw_contact_sheet(found, tmp_path / "sheet.png")
    sheet = np.asarray(opened(tmp_path / "sheet.png"))
    shown = []
    for place in range(64):
        row, column = divmod(place, COLUMNS)
        y, x = 24 + 34 + 66 + row * (132 + 18 + 12), 24 + 66 + column * (132 + 12)
        shown.append(int(sheet[y, x, 0]) // 3)
        assert sheet[y, x].tolist() == [3 * shown[-1], 0, 0]
    assert shown == chosen


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_any_number_of_channels_can_be_shown(tmp_path: Path, channels: int) -> None:
    draw_contact_sheet(inspect(Splits(one_colour(3, channels))), tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").mode == "RGB"


def test_the_sheet_shows_the_largest_bursts_below(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for i in range(20):
        save(images / f"{i:02}.png", 0 if i < 12 else 1 if i < 14 else i)
    found = inspect(folder(images))
    assert [len(burst) for burst in found.bursts] == [12, 2]
    draw_contact_sheet(found, tmp_path / "with.png")
    with_bursts = opened(tmp_path / "with.png")
    alone = Inspection(**{**found.__dict__, "bursts": []})
    draw_contact_sheet(alone, tmp_path / "without.png")
    assert with_bursts.height > opened(tmp_path / "without.png").height + 2 * 132
    first_tile = with_bursts.crop((24, 24 + 34, 24 + 132, 24 + 34 + 132))
    below = opened(tmp_path / "without.png").height - 24
    burst = with_bursts.crop((24, below + 34 + 24, 24 + 132, below + 34 + 24 + 132))
    assert burst.tobytes() == first_tile.tobytes(), "00.png, the first of the largest"


def test_what_vanishes_after_the_look_leaves_its_place_empty(tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"{i}.png", i)
    found = inspect(folder(tmp_path))
    (tmp_path / "1.png").unlink()
    draw_contact_sheet(found, tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").getpixel((24 + 144 + 66, 24 + 34 + 66)) == (0xEE, 0xEE, 0xEE)


def test_solid_files_are_of_one_colour_and_one_burst(tmp_path: Path) -> None:
    for i in range(4):
        write(tmp_path / f"{i}.png", (200, 30, 60) if i < 3 else (20, 30, 60))
    assert [len(burst) for burst in inspect(folder(tmp_path)).bursts] == [3]
