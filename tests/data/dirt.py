"""Every kind of dirt that folders in the wild hold, made from a real photograph, and what is to become of each."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Picture = Image.Image


class Dirt(NamedTuple):
    """How a file is made of a photograph, and its outcome: a reason why it cannot be read, or the picture that a viewer
    would show and how far from it a decoded pixel may lie on average (of 255)."""

    make: Callable[[Picture], bytes]
    outcome: str | Callable[[Picture], Picture]
    tolerance: float = 0.0


def encoded(image: Picture, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_it_is(photo: Picture) -> Picture:
    return photo


def grey(photo: Picture) -> Picture:
    return photo.convert("L").convert("RGB")


# What a viewer shows


def jpeg(photo: Picture) -> bytes:
    return encoded(photo, "jpeg", quality=95, subsampling=0)


def turned_by_exif(photo: Picture) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    return encoded(photo, "jpeg", quality=95, subsampling=0, exif=exif)


def ycck(photo: Picture) -> bytes:
    """What Photoshop writes: CMYK, inverted, its first three channels as YCbCr, which Pillow cannot write."""
    inverted = Image.fromarray(255 - np.asarray(photo)).convert("YCbCr")
    black = np.full((*np.asarray(inverted).shape[:2], 1), 255, np.uint8)
    stored = np.concatenate([np.asarray(inverted), black], axis=2)
    data = encoded(Image.fromarray(255 - stored, "CMYK"), "jpeg", quality=95)
    place = data.index(b"Adobe") + 11  # the marker's last byte says how the channels are stored
    return data[:place] + b"\x02" + data[place + 1 :]


def veiled(photo: Picture) -> Picture:
    """The photograph, more transparent from left to right."""
    image = photo.copy()
    image.putalpha(Image.fromarray(np.linspace(255, 0, photo.width).astype(np.uint8)[None].repeat(photo.height, 0)))
    return image


def laid_on_white(photo: Picture) -> Picture:
    pixels, opacity = np.asarray(photo), np.asarray(veiled(photo))[..., 3:] / 255
    return Image.fromarray(np.rint(pixels * opacity + 255 * (1 - opacity)).astype(np.uint8))


def transparent_palette(photo: Picture) -> bytes:
    """The upper half is of a colour that counts as transparent."""
    picture = photo.quantize(255, dither=Image.Dither.NONE)
    pixels = np.asarray(picture).copy()
    pixels[: len(pixels) // 2] = 255
    image = Image.fromarray(pixels, "P")
    image.putpalette([*(picture.getpalette() or [])[: 3 * 255], 1, 2, 3])
    return encoded(image, "png", transparency=255)


def lower_half_on_white(photo: Picture) -> Picture:
    pixels = np.asarray(photo).copy()
    pixels[: len(pixels) // 2] = 255
    return Image.fromarray(pixels)


def animated(kind: str, **options: Any) -> Callable[[Picture], bytes]:
    def make(photo: Picture) -> bytes:
        others = [photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), Image.new("RGB", photo.size)]
        return encoded(photo, kind, save_all=True, append_images=others, duration=50, **options)

    return make


def of_16_bits(photo: Picture) -> Picture:
    return Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)


def colour_of_16_bits(photo: Picture) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.asarray(photo).astype(np.uint16) * 257, photometric="rgb")
    return stream.getvalue()


def array(photo: Picture) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(photo))
    return stream.getvalue()


def one_pixel(photo: Picture) -> Picture:
    return photo.resize((1, 1))


def panorama(photo: Picture) -> Picture:
    """20,000 pixels wide."""
    return photo.resize((20_000, 24))


# What no viewer shows


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def black_png(width: int, height: int) -> bytes:
    """A bilevel picture, small on disk whatever its size."""
    packer = zlib.compressobj()
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bomb(_: Picture) -> bytes:
    """A whole, valid picture of 200 million pixels in 25 kB."""
    return black_png(20_000, 10_000)


def program(_: Picture) -> bytes:
    """PostScript is a program; a reader that knows it would run an interpreter."""
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def float_tiff(photo: Picture) -> bytes:
    return encoded(Image.fromarray(np.asarray(photo.convert("L")).astype(np.float32)), "tiff")


def wide_integers(photo: Picture) -> bytes:
    return encoded(Image.fromarray(np.asarray(photo.convert("L")).astype(np.int32) * 70_000), "tiff")


DIRT: dict[str, Dirt] = {
    # decoded
    "plain.png": Dirt(lambda photo: encoded(photo, "png"), as_it_is),
    "plain.jpg": Dirt(jpeg, as_it_is, 3),
    "a png called.jpg": Dirt(lambda photo: encoded(photo, "png"), as_it_is),
    "a jpeg called.png": Dirt(jpeg, as_it_is, 3),
    "UPPER.JPEG": Dirt(jpeg, as_it_is, 3),
    "plain.bmp": Dirt(lambda photo: encoded(photo, "bmp"), as_it_is),
    "plain.ppm": Dirt(lambda photo: encoded(photo, "ppm"), as_it_is),
    "plain.webp": Dirt(lambda photo: encoded(photo, "webp", lossless=True), as_it_is),
    "packed.tif": Dirt(lambda photo: encoded(photo, "tiff", compression="tiff_lzw"), as_it_is),
    "progressive.jpg": Dirt(
        lambda photo: encoded(photo, "jpeg", quality=95, subsampling=0, progressive=True), as_it_is, 3
    ),
    "grey.jpg": Dirt(lambda photo: encoded(photo.convert("L"), "jpeg", quality=95), grey, 3),
    "bilevel.png": Dirt(
        lambda photo: encoded(photo.convert("1"), "png"), lambda photo: photo.convert("1").convert("RGB")
    ),
    "cmyk.jpg": Dirt(lambda photo: encoded(photo.convert("CMYK"), "jpeg", quality=95), as_it_is, 4),
    "ycck.jpg": Dirt(ycck, as_it_is, 4),
    "cmyk.tif": Dirt(lambda photo: encoded(photo.convert("CMYK"), "tiff"), as_it_is, 1),
    "palette.gif": Dirt(lambda photo: encoded(photo, "gif"), as_it_is, 12),
    "palette.png": Dirt(lambda photo: encoded(photo.quantize(256), "png"), as_it_is, 12),
    "palette with a hole.png": Dirt(transparent_palette, lower_half_on_white, 12),
    "alpha.png": Dirt(lambda photo: encoded(veiled(photo), "png"), laid_on_white, 1),
    "alpha.webp": Dirt(lambda photo: encoded(veiled(photo), "webp", lossless=True, exact=True), laid_on_white, 1),
    "turned.jpg": Dirt(turned_by_exif, lambda photo: photo.transpose(Image.Transpose.ROTATE_270), 3),
    "damaged exif.jpg": Dirt(
        lambda photo: encoded(photo, "jpeg", quality=95, subsampling=0, exif=b"Exif\0\0junk"), as_it_is, 3
    ),
    "animated.gif": Dirt(animated("gif"), as_it_is, 12),
    "animated.webp": Dirt(animated("webp", lossless=True), as_it_is),
    "animated.png": Dirt(animated("png"), as_it_is),
    "two pages.tif": Dirt(animated("tiff"), as_it_is),
    "two views.jpg": Dirt(animated("mpo", quality=95, subsampling=0), as_it_is, 3),
    "16 bits.png": Dirt(lambda photo: encoded(of_16_bits(photo), "png"), grey),
    "16 bits.tif": Dirt(lambda photo: encoded(of_16_bits(photo), "tiff"), grey),
    "16 bits.pgm": Dirt(lambda photo: encoded(of_16_bits(photo), "ppm"), grey),
    "16 bits in colour.tif": Dirt(colour_of_16_bits, as_it_is),
    "array.npy": Dirt(array, as_it_is),
    "1x1.png": Dirt(lambda photo: encoded(one_pixel(photo), "png"), one_pixel),
    "panorama.png": Dirt(lambda photo: encoded(panorama(photo), "png"), panorama),
    "größe 猫 🦊.jpg": Dirt(jpeg, as_it_is, 3),
    "two\nlines.jpg": Dirt(jpeg, as_it_is, 3),
    "quotes ' \" , and $(ls).jpg": Dirt(jpeg, as_it_is, 3),
    # passed over, with the reason
    "truncated.jpg": Dirt(lambda photo: truncated(jpeg(photo)), r"image file is truncated \(\d+ bytes not processed\)"),
    "truncated.png": Dirt(lambda photo: truncated(encoded(photo, "png")), "image file is truncated"),
    "truncated.gif": Dirt(lambda photo: truncated(encoded(photo, "gif")), "image file is truncated"),
    "truncated.webp": Dirt(lambda photo: truncated(encoded(photo, "webp")), "could not create decoder object|decode"),
    "truncated.npy": Dirt(lambda photo: truncated(array(photo)), "Failed to read all data|EOF"),
    "empty.jpg": Dirt(lambda photo: b"", "the file is empty"),
    "page.jpg": Dirt(lambda photo: b"<html>404 not found</html>", "not an image"),
    "magic only.png": Dirt(lambda photo: b"\x89PNG\r\n\x1a\n", "."),
    "zeros.jpg": Dirt(lambda photo: bytes(5000), "not an image"),
    "program.jpg": Dirt(program, "not an image"),
    "bomb.png": Dirt(bomb, r"200000000 pixels.*decompression bomb"),
    "float.tif": Dirt(float_tiff, "floating-point pixels"),
    "32 bits.tif": Dirt(wide_integers, "32-bit pixels"),
}


def write_dirt(folder: Path, name: str, photo: Picture) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(DIRT[name].make(photo))
    return folder / name


def pixels_of(image: Picture) -> NDArray[np.int64]:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1).astype(np.int64)


def sample_photos(count: int) -> list[Picture]:
    """Crops of two real photographs that ship with scikit-learn."""
    from sklearn.datasets import load_sample_image

    whole = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    corners = np.random.RandomState(0).randint((0, 0), (640 - 96, 427 - 80), (count, 2)).tolist()
    return [whole[i % 2].crop((x, y, x + 96, y + 80)) for i, (x, y) in enumerate(corners)]


def dangling_link(path: Path) -> None:
    os.symlink(path.with_name("nowhere"), path)
