"""Images that hold more than a picture: any number of channels, 16 bits, TIFF and .npy as instruments write them.

What a viewer could show is Pillow's business (decode.py); it knows neither six channels nor 16-bit colour. Here the
numbers in a file become an array [H, W, C] as they are, and only `fit` makes something else of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evensphere.data.source import UnreadableImage

_Stream = IO[bytes] | BytesIO  # see `decode.EncodedImage`

_NPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two: BigTIFF

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is told as the reason

# What an EXIF orientation does to rows and columns
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: v.swapaxes(0, 1)[:, ::-1],
    7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
    8: lambda v: v.swapaxes(0, 1)[::-1],
}


class NoTifffile(UnreadableImage):
    """The image may be sound: the optional package that reads it is not there."""


class Planes(NamedTuple):
    """values: [H, W, C] uint8, uint16 or float in 0..1. alpha: the last channel is how opaque a pixel is."""

    values: NDArray[Any]
    alpha: bool = False


def read_planes(file: str | Path | _Stream) -> Planes | None:
    """The numbers in a .npy file or a TIFF; None for a file of another kind.

    Of several pages the first counts, unless they are the channels of one image, and all of them are in this file.
    Raises NoTifffile for a TIFF where that package is missing, UnreadableImage, or whatever the reader raises on
    malformed bytes.
    """
    if isinstance(file, str | Path):
        with open(file, "rb") as stream:
            return _read(stream)
    file.seek(0)
    planes = _read(file)
    file.seek(0)
    return planes


def count_channels(file: str | Path | _Stream) -> int | None:
    """Channels by the header of a .npy file or TIFF, alpha left out; None for a file of another kind. Raises as
    `read_planes` does."""
    if isinstance(file, str | Path):
        with open(file, "rb") as stream:
            return count_channels(stream)
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    if start.startswith(_NPY):
        shape, _ = _npy_header(file)
        return 1 if len(shape) == 2 else min(shape[0], shape[2])
    if start.startswith(_TIFF):
        with _tiff(file) as opened:
            layout = _tiff_layout(opened)
            return None if layout is None else layout.shape[2] - layout.alpha
    return None


def fit(planes: Planes, channels: int) -> NDArray[Any]:
    """[H, W, channels]: as they are, or as Pillow would convert them: grey repeated, colour to its luminance, alpha
    laid on white. Raises UnreadableImage where the image has too few or too many channels for that."""
    values, alpha = planes
    if values.shape[2] == channels:
        return values
    full = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    if alpha:
        opacity = values[..., -1:] / full
        laid = values[..., :-1] * opacity + full * (1 - opacity)
        values = (laid if values.dtype.kind == "f" else np.rint(laid)).astype(values.dtype)
    count = values.shape[2]
    if count == 1 and channels in (3, 4):
        values = values.repeat(3, axis=2)
    elif count == 3 and channels == 1:
        grey = values @ np.array([0.299, 0.587, 0.114])
        values = (grey if values.dtype.kind == "f" else np.rint(grey)).astype(values.dtype)[..., None]
    elif count != channels and not (count == 3 and channels == 4):
        raise UnreadableImage(f"it has {count} channel(s), which cannot be made {channels}")
    if channels == 4 and values.shape[2] == 3:
        values = np.concatenate([values, np.full_like(values[..., :1], full)], axis=2)
    return values


def with_bits(values: NDArray[Any], bits: int) -> NDArray[Any]:
    """uint8 for 8 bits (16-bit numbers divided by 257, so that full scale stays full scale), float32 in 0..1 for 16."""
    if bits == 16:
        full = 1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
        return values.astype(np.float32) / np.float32(full)
    if values.dtype == np.uint16:
        return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)
    return values if values.dtype == np.uint8 else np.rint(values * 255).astype(np.uint8)


def _read(stream: _Stream) -> Planes | None:
    start = stream.read(8)
    stream.seek(0)
    if start.startswith(_NPY):
        shape, _ = _npy_header(stream)
        _check_size(shape)
        stream.seek(0)
        return Planes(_in_range(_as_hwc(np.lib.format.read_array(stream, allow_pickle=False))))
    if start.startswith(_TIFF):
        with _tiff(stream) as opened:
            return _read_tiff(opened)
    return None


def _check_size(shape: Sequence[int]) -> None:
    """Bounds what is allocated, as Pillow does for pictures (which have three numbers a pixel)."""
    most = 2 * Image.MAX_IMAGE_PIXELS * 3 if Image.MAX_IMAGE_PIXELS else math.inf
    if math.prod(shape) > most:
        raise UnreadableImage(
            f"it says it holds {math.prod(shape):,} numbers, more than {most:,}: a decompression bomb"
        )


def _in_range(values: NDArray[Any]) -> NDArray[Any]:
    """uint8, uint16 and floats in 0..1 have a known range."""
    if values.size == 0:
        raise UnreadableImage("it has no pixels")
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        return values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind != "f":
        raise UnreadableImage(f"{values.dtype} numbers have no known range; save it as uint8, uint16 or floats in 0..1")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise UnreadableImage("floating-point pixels outside 0..1 have no known range; divide them by their largest")
    return values.astype(np.float32)


# .npy


def _npy_header(stream: _Stream) -> tuple[tuple[int, ...], np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(stream)
    if version not in read:
        raise UnreadableImage(f"a .npy file of version {version[0]}.{version[1]}; save it with numpy.save")
    shape, _, dtype = read[version](stream)
    if len(shape) not in (2, 3) or 0 in shape:
        raise UnreadableImage(f"an array of shape {shape} is no image; save [H, W] or [H, W, C]")
    return shape, dtype


def _as_hwc(values: NDArray[Any]) -> NDArray[Any]:
    """[H, W] becomes [H, W, 1]. Of three axes the shorter of the first and the last counts the channels."""
    if values.ndim == 2:
        return values[..., None]
    return np.moveaxis(values, 0, 2) if values.shape[0] < values.shape[2] else values


# TIFF


def _tiff(stream: _Stream) -> Any:
    """The file as tifffile has it, by itself: what it says of other files (OME, Micro-Manager, NDTiff) is not followed,
    since a stranger's image may name any."""
    try:
        import tifffile
    except ImportError:
        raise NoTifffile("a TIFF of 16 bits or many channels needs tifffile; pip install 'evensphere[tiff]'") from None
    return tifffile.TiffFile(stream, _multifile=False, is_mmstack=False, is_ndtiff=False)


class _Layout(NamedTuple):
    """shape: [H, W, C]. read: the numbers in that shape. alpha: whether the last channel is that."""

    shape: tuple[int, int, int]
    read: Callable[[], NDArray[Any]]
    alpha: bool


def _tiff_layout(opened: Any) -> _Layout | None:
    """Channels are samples of the first page, or pages that are called channels (ImageJ, OME) and are all there, since
    tifffile makes zeros of those that are not. None for palettes, CMYK and the like, which are pictures."""
    page, series = opened.pages[0], opened.series[0]
    if page.photometric.name not in ("MINISBLACK", "RGB"):
        return None
    if series.axes in ("CYX", "SYX") and all(one is not None for one in series._pages):
        channels, height, width = series.shape
        shape, read = (height, width, channels), lambda: np.moveaxis(series.asarray(), 0, 2)
    else:
        shape, read = (page.imagelength, page.imagewidth, page.samplesperpixel), lambda: _samples(page, shape)
    return _Layout(shape, read, shape[2] in (2, 4) and any(extra in (1, 2) for extra in page.extrasamples))


def _samples(page: Any, shape: tuple[int, int, int]) -> NDArray[Any]:
    """A page as [H, W, C], however its samples lie."""
    height, width, samples = shape
    values: NDArray[Any] = page.asarray()
    if page.planarconfig == 2 and samples > 1:
        return np.moveaxis(values.reshape(samples, height, width), 0, 2)
    return values.reshape(shape)


def _read_tiff(opened: Any) -> Planes | None:
    layout = _tiff_layout(opened)
    if layout is None:
        return None
    _check_size(layout.shape)
    tag = opened.pages[0].tags.get("Orientation")
    values = layout.read()
    if tag is not None and tag.value in _UPRIGHT:
        values = _UPRIGHT[tag.value](values)
    return Planes(_in_range(values), layout.alpha)
