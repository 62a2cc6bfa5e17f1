"""Image files as they are found: every kind of dirt with its outcome."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data import dirt
from tests.data.dirt import sample_photos
from tests.data.image_files import write

from evensphere.data.decode import count_channels, decode
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
    assert decode(tmp_path / name, 4)[2, 0].tolist() == expected


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


# ---------------------------------------------------------------------------------------------------------------------
# Bytes that nobody wrote


def valid_bytes() -> dict[str, bytes]:
    """A photograph in every format that is read, in the modes that take other paths through the decoder."""
    photo = sample_photos(1)[0].resize((24, 20))
    ways: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (photo, "jpeg", {}),
        "progressive": (photo, "jpeg", {"progressive": True}),
        "cmyk": (photo.convert("CMYK"), "jpeg", {}),
        "png": (photo, "png", {}),
        "palette": (photo.quantize(16), "png", {"transparency": 3}),
        "deep": (Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257), "png", {}),
        "gif": (photo, "gif", {}),
        "tiff": (photo, "tiff", {}),
        "packed": (photo, "tiff", {"compression": "tiff_lzw"}),
        "jpeg in tiff": (photo, "tiff", {"compression": "jpeg"}),
        "webp": (photo, "webp", {}),
        "lossless": (photo.convert("RGBA"), "webp", {"lossless": True}),
        "bmp": (photo, "bmp", {}),
        "ppm": (photo, "ppm", {}),
    }
    found = {name: dirt.encoded(image, kind, **options) for name, (image, kind, options) in ways.items()}
    return found | {"npy": dirt.array(photo), "tiff of 16 bits": dirt.colour_of_16_bits(photo)}


VALID = valid_bytes()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Some bytes changed, mostly in the header, and perhaps the end cut off."""
    data = bytearray(draw(st.sampled_from(list(VALID.values()))))
    place = st.one_of(st.integers(0, min(99, len(data) - 1)), st.integers(0, len(data) - 1))
    for where, byte in draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8)):
        data[where] = byte
    return bytes(data[: draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))])


def outcome(read: Callable[[], Any]) -> Any:
    """What is read, or the reason why not."""
    try:
        return read()
    except UnreadableImage as reason:
        return str(reason)


def check_that_damage_is_survived(data: bytes, channels: int, bits: int) -> None:
    """It becomes an image or says why not: no other exception, no warning, no end of time."""
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = outcome(lambda: decode(BytesIO(data), channels, bits))
        count = outcome(lambda: count_channels(BytesIO(data)))
    if isinstance(pixels, str):
        assert pixels
        assert "\n" not in pixels
    else:
        assert pixels.shape[0] == channels
        assert pixels.dtype == (torch.uint8 if bits == 8 else torch.float32)
        assert pixels.numel() > 0
    assert count
    assert isinstance(count, str) or count >= 1
    assert time.process_time() - started < 20


CHANNELS, BITS = st.sampled_from([1, 3, 4, 6]), st.sampled_from([8, 16])


@settings(max_examples=150, deadline=None)
@given(damaged(), CHANNELS, BITS)
def test_damaged_bytes_decode_or_say_why_not(data: bytes, channels: int, bits: int) -> None:
    check_that_damage_is_survived(data, channels, bits)


@pytest.mark.slow
@settings(max_examples=6_000, deadline=None)
@given(damaged(), CHANNELS, BITS)
def test_much_damage(data: bytes, channels: int, bits: int) -> None:
    check_that_damage_is_survived(data, channels, bits)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), CHANNELS, BITS)
def test_noise_is_no_image(data: bytes, channels: int, bits: int) -> None:
    check_that_damage_is_survived(data, channels, bits)


def test_bombs_take_no_memory(tmp_path: Path) -> None:
    """Whole images that would unpack to 200 million pixels and more, each in a few kilobytes: what a fresh process
    takes for refusing all of them, measured."""
    (tmp_path / "whole.png").write_bytes(dirt.black_png(20_000, 10_000))
    photo = Image.new("L", (1, 1))
    for kind, ending in (("gif", "gif"), ("ppm", "pgm"), ("bmp", "bmp")):
        (tmp_path / f"header.{ending}").write_bytes(dirt.encoded(photo, kind))
    huge = struct.pack("<H", 60_000)
    gif = bytearray((tmp_path / "header.gif").read_bytes())
    gif[6:10] = huge * 2
    (tmp_path / "header.gif").write_bytes(gif)
    (tmp_path / "header.pgm").write_bytes(b"P5 60000 60000 255\n")
    bmp = bytearray((tmp_path / "header.bmp").read_bytes())
    bmp[18:26] = struct.pack("<II", 60_000, 60_000)
    (tmp_path / "header.bmp").write_bytes(bmp)
    code = """
import resource, sys
from pathlib import Path
from evensphere.data.decode import decode
from evensphere.data.source import UnreadableImage
try:
    decode("nothing.png", 3)  # all is imported now
except UnreadableImage:
    pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sorted(Path(sys.argv[1]).iterdir()):
    for channels, bits in ((3, 8), (1, 16)):
        try:
            decode(file, channels, bits)
        except UnreadableImage as reason:
            assert "decompression bomb" in str(reason), (file, reason)
        else:
            sys.exit(f"{file} was unpacked")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30, "MiB"


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.init()  # every reader there is
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.jpg").write_bytes(dirt.program(Image.new("RGB", (1, 1))))
    with pytest.raises(UnreadableImage, match="not an image"):
        decode(tmp_path / "a.jpg", 3)


def test_no_warning_comes_out_of_any_thread_and_the_filters_stay(tmp_path: Path) -> None:
    """Each thread meets files that Pillow warns of; afterwards warnings are what they were."""
    photo = sample_photos(1)[0]
    (tmp_path / "a.jpg").write_bytes(dirt.encoded(photo, "jpeg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            shapes = {tuple(pixels.shape) for pixels in pool.map(lambda _: decode(tmp_path / "a.jpg", 3), range(200))}
        assert list(warnings.filters) == before
        assert shapes == {(3, photo.height, photo.width)}
        assert not told
        warnings.warn("still heard", stacklevel=1)
        assert len(told) == 1
