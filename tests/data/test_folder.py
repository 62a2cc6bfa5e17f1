"""Folders as they are found: every kind of dirt with its outcome, one order everywhere, splits by folder name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evensphere.data.folder import FolderSource, decode, folder, labelled, readable, scan
from evensphere.data.source import ArraySource, Source, Splits, Subset, UnreadableImage
from evensphere.errors import InputError


def write(path: Path, colour: tuple[int, ...] = (200, 30, 60), size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def locations(source: Source) -> list[str]:
    return [source.location(i) for i in range(len(source))]


def class_folders(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        for i in range(count):
            write(root / name / f"{i}.png", (i, 0, 0))
    return root


# Decoding


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.bmp", "a.webp", "a.gif", "a.tif", "a.TIFF", "a.ppm"])
def test_usual_formats_become_rgb(tmp_path: Path, name: str) -> None:
    pixels = decode(write(tmp_path / name), 3)
    assert pixels.shape == (3, 6, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert (pixels.float() - torch.tensor([200.0, 30, 60])[:, None, None]).abs().max() <= 4  # the lossy ones


def test_lossless_pixels_are_exact(tmp_path: Path) -> None:
    values = np.random.RandomState(0).randint(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 3).permute(1, 2, 0).numpy() == values).all()
    Image.fromarray(values[..., 0]).save(tmp_path / "grey.pgm")
    assert (decode(tmp_path / "grey.pgm", 1)[0].numpy() == values[..., 0]).all()
    assert (decode(tmp_path / "grey.pgm", 3).numpy() == values[..., 0]).all()


def test_one_channel_is_luminance(tmp_path: Path) -> None:
    pixels = decode(write(tmp_path / "a.png", (255, 0, 0)), 1)
    assert pixels.shape == (1, 6, 8)
    assert (pixels == 76).all()  # 0.299 * 255


def test_a_palette_with_a_transparent_entry_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png", transparency=0)
    assert decode(tmp_path / "a.png", 3)[:, 0].T.tolist() == [[255, 255, 255], [0, 0, 255]]
    image.save(tmp_path / "partly.png", transparency=bytes([255, 0]))
    assert decode(tmp_path / "partly.png", 3)[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(("mode", "colour"), [("RGBA", (0, 0, 0, 102)), ("LA", (0, 102))])
def test_alpha_is_laid_on_white(tmp_path: Path, mode: str, colour: tuple[int, ...]) -> None:
    Image.new(mode, (3, 3), colour).save(tmp_path / "a.png")
    assert (decode(tmp_path / "a.png", 3) == 153).all()
    assert (decode(tmp_path / "a.png", 1) == 153).all()


def test_cmyk_jpegs_become_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / "cyan.jpg")
    red, green, blue = decode(tmp_path / "cyan.jpg", 3).float().mean(dim=(1, 2)).tolist()
    assert red < 5
    assert green > 250
    assert blue > 250


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_keeps_its_full_scale(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65534, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    expected = [0, 0, 1, 1, 128, 255, 255]
    assert decode(tmp_path / name, 1)[0, 0].tolist() == expected
    assert decode(tmp_path / name, 3)[2, 0].tolist() == expected


@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, (0, 0)), (3, (5, 7)), (6, (0, 5)), (8, (7, 0)), (2, (0, 7)), (5, (0, 0))]
)
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, corner: tuple[int, int]) -> None:
    """The stored image has its first pixel white; `corner` is the row and column where a viewer shows it."""
    image = Image.new("RGB", (8, 6))
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    pixels = decode(tmp_path / "a.png", 3)
    assert pixels.shape == ((3, 8, 6) if orientation >= 5 else (3, 6, 8))
    assert (pixels[0] == 255).nonzero().tolist() == [list(corner)]


def test_orientation_is_read_from_jpegs_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(write(tmp_path / "a.jpg", exif=exif), 3).shape == (3, 8, 6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path) -> None:
    for junk in (b"Exif\0\0not a tiff header", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"):
        assert decode(write(tmp_path / "a.jpg", exif=junk), 3).shape == (3, 6, 8)


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations_show_their_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)  # lossless: for WebP
    assert decode(tmp_path / name, 3)[:, 0, 0].tolist() == [255, 0, 0]


def truncated_jpeg(path: Path) -> None:
    write(path, size=(200, 200))
    path.write_bytes(path.read_bytes()[:700])


def truncated_png(path: Path) -> None:
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (50, 50, 3)).astype(np.uint8)).save(path, "png")
    path.write_bytes(path.read_bytes()[:3000])


def float_tiff(path: Path) -> None:
    Image.new("F", (3, 3), 0.5).save(path, "tiff")


def wide_integer_tiff(path: Path) -> None:
    Image.fromarray(np.full((3, 3), 70_000, np.int32)).save(path, "tiff")


DIRT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.jpg": (truncated_jpeg, "truncated"),
    "truncated.png": (truncated_png, "truncated"),
    "empty.jpg": (Path.touch, "the file is empty"),
    "text.jpg": (lambda path: path.write_text("<html>404 not found</html>"), "not an image"),
    "header_only.png": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n"), "."),
    "float.tiff": (float_tiff, "floating-point pixels"),
    "wide.tiff": (wide_integer_tiff, "32-bit pixels"),
}


@pytest.mark.parametrize("name", DIRT)
def test_what_cannot_be_decoded_says_why_in_one_line(tmp_path: Path, name: str) -> None:
    make, reason = DIRT[name]
    make(tmp_path / name)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(tmp_path / name, 3)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        decode(tmp_path / "gone.png", 3)


def test_decompression_bombs_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decode(tmp_path / "a.png", 3)


# Listing


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
    with pytest.raises(InputError, match="not 4"):
        folder(file.parent, channels=4)

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


# The check before training


def dirty_folder(root: Path, good: int, bad: int) -> Path:
    for i in range(good):
        write(root / f"good{i:03}.png")
    for i in range(bad):
        (root / f"bad{i:03}.jpg").write_text("no image")
    return root


def recorded_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    read = FolderSource.read

    def record(self: FolderSource, i: int) -> Tensor:
        reads.append(i)
        return read(self, i)

    monkeypatch.setattr(FolderSource, "read", record)
    return reads


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_image_is_decoded_once(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FolderSource(dirty_folder(tmp_path, good=150, bad=3))
    reads = recorded_reads(monkeypatch)
    seen: list[tuple[int, int]] = []
    unreadable = scan(source, workers, lambda done, total: seen.append((done, total)))
    assert [i for i, _ in unreadable] == [0, 1, 2]
    assert {reason for _, reason in unreadable} == {"not an image, or of a kind Pillow cannot read"}
    assert sorted(reads) == list(range(153))
    assert seen == [(64, 153), (128, 153), (153, 153)]
    kept = readable(source, unreadable)
    assert len(kept) == 150
    assert scan(kept, workers) == []


def test_an_interrupted_check_stops(tmp_path: Path) -> None:
    source = FolderSource(dirty_folder(tmp_path, good=130, bad=0))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(source, 2, interrupt)


def test_a_clean_source_is_returned_as_it_is(tmp_path: Path) -> None:
    source = FolderSource(dirty_folder(tmp_path, good=2, bad=0))
    assert readable(source, scan(source)) is source


@pytest.mark.parametrize(("good", "bad"), [(3, 4), (1, 1), (0, 2)])
def test_mostly_unreadable_folders_are_refused(tmp_path: Path, good: int, bad: int) -> None:
    source = FolderSource(dirty_folder(tmp_path, good, bad))
    message = rf"{bad} of the {good + bad} images of .* first being bad000\.jpg \(not an image"
    with pytest.raises(InputError, match=message):
        readable(source, scan(source))


def test_half_unreadable_is_still_dirt(tmp_path: Path) -> None:
    source = FolderSource(dirty_folder(tmp_path, good=4, bad=4))
    assert len(readable(source, scan(source))) == 4


def test_arrays_need_no_check() -> None:
    source = ArraySource("x", torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    assert scan(source) == []
