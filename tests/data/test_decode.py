"""Image files as they are found: every kind of dirt with its outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.image_files import write

from evensphere.data.decode import decode
from evensphere.data.source import UnreadableImage


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png", "a.bmp", "a.webp", "a.gif", "a.tif", "a.TIFF", "a.ppm"])
def test_usual_formats_become_rgb(tmp_path: Path, name: str) -> None:
    pixels = decode(write(tmp_path / name), 3)
    assert pixels.shape == (3, 6, 8)
    assert pixels.dtype == torch.uint8
    assert pixels.permute(1, 2, 0).is_contiguous(), "channels last"
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
