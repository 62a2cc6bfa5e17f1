"""From the bytes of an image file to pixels, whatever was found in the wild.

Folders found in the wild hold truncated downloads, text files called .jpg, palettes, alpha channels, CMYK and 16-bit
scans. Each either becomes the picture a viewer would show, or is reported with a reason; none is silently passed over.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from evensphere.data import planes
from evensphere.data.source import Pixels, UnreadableImage

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".npy")

# What a file may turn out to be, whatever its name says. Others are not tried: EPS, for one, starts a program.
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM")

logging.getLogger("PIL").addHandler(logging.NullHandler())  # it tells of dirt, too, and is not to print it

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_BITS, _DESCRIPTION, _SAMPLES_PER_PIXEL, _PLANAR = 258, 270, 277, 284  # TIFF's tags

EncodedImage = str | Path | IO[bytes] | BytesIO  # which is no IO[bytes] to those who check types at run time


def decode(file: EncodedImage, channels: int, bits: int = 8) -> Pixels:
    """The picture a viewer shows: upright by its EXIF orientation, alpha on white, the first frame of several (but
    channels that a microscope's TIFF keeps in a page each, by ImageJ or OME, are one image if that has `channels`, or
    three that can be made one).

    file: a path, or an open binary file that can seek.
    channels: 1 is the luminance, 3 is RGB, 4 keeps the alpha of pictures and the fourth channel of other images. Any
        number is read from TIFF and .npy files that have it ([H, W, C], or [C, H, W] where the first axis is shorter
        than the last).
    bits: 8 gives uint8, and 16-bit numbers are divided by 257, so that full scale stays full scale. 16 keeps what TIFF,
        .npy and grey PNG and PGM files hold, as float32 in 0..1; 16-bit colour of other kinds is refused.

    The pixels lie in memory with the channels last, as decoders leave them and as torchvision crops them fastest.
    Raises UnreadableImage with a one-line reason. Pillow bounds what is allocated: an image that says it has more than
    179 million pixels is refused as a decompression bomb.
    """
    with _quiet:
        try:
            pixels = _read(file, channels, bits)
        except UnreadableImage:
            raise
        except Exception as error:  # readers raise almost anything on malformed bytes
            raise UnreadableImage(_reason(error, file)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def count_channels(file: EncodedImage) -> int:
    """How many channels an image has by its header: 1 grey, 3 colour (palettes too), alpha left out; more where a TIFF
    or .npy file has them. Raises UnreadableImage with a one-line reason."""
    with _quiet:
        try:
            return _count_channels(file)
        except UnreadableImage:
            raise
        except Exception as error:
            raise UnreadableImage(_reason(error, file)) from error


def _count_channels(file: EncodedImage) -> int:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            by_mode = 1 if image.mode[0] in "1LIF" and image.mode != "LAB" else 3
            if not (_channels_in_pages(image) or _has_more_samples(image)):
                return by_mode
    except UnidentifiedImageError:
        if (count := planes.count_channels(file)) is None:
            raise
        return count
    try:
        count = planes.count_channels(file)
    except planes.NoTifffile:
        count = None
    return by_mode if count is None else count  # CMYK and the like are pictures, whatever else a pixel has


def _read(file: EncodedImage, channels: int, bits: int) -> NDArray[Any]:
    """[H, W, channels], uint8 or float32. Pillow reads what a viewer could show; what it does not know, or would cut to
    8 bits, `planes` reads."""
    pillow_first = bits == 8 and channels in (1, 3)
    if not pillow_first and (found := planes.read_planes(file)) is not None:
        return planes.with_bits(planes.fit(found, channels), bits)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if bits == 16 and _is_cut(image):
                raise UnreadableImage(
                    f"16-bit colour in a {image.format} file is read with 8 bits only; save it as TIFF, or set bits=8"
                )
            if pillow_first and (found := _not_for_pillow(image, file)) is not None:
                return planes.with_bits(planes.fit(found, channels), bits)
            image.load()  # by itself, so that what fails in `_upright` can only be metadata
            return _picture(_upright(image), channels, bits)
    except UnidentifiedImageError:
        found = planes.read_planes(file) if pillow_first else None
        if found is None:
            raise
        return planes.with_bits(planes.fit(found, channels), bits)


def _tiff_tags(image: Image.Image) -> Mapping[int, Any]:
    """Of the first page of a TIFF; none of a file of another kind."""
    tags: Mapping[int, Any] = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    return tags


def _not_for_pillow(image: Image.Image, file: EncodedImage) -> planes.Planes | None:
    """A TIFF's numbers, where Pillow would show a jumble, or one of three channels; else None. Without tifffile one of
    three is shown."""
    deep = _are_deep_planes(image)
    if not deep and _channels_in_pages(image) != 3:  # no picture can be made of two or of four: the first page is one
        return None
    try:
        found = planes.read_planes(file)
    except planes.NoTifffile:
        if deep:
            raise
        return None
    count = 1 if found is None else found.values.shape[2]
    return found if count == 3 or (deep and count > 1) else None


def _channels_in_pages(image: Image.Image) -> int:
    """How many channels a microscope's TIFF (ImageJ, OME) has, if they are a page each and not pages to turn; else 0.
    The first page's description says so; the others are not looked at."""
    description = str(_tiff_tags(image).get(_DESCRIPTION, ""))
    pattern = r"(?m)^channels=(\d+)" if description.startswith("ImageJ=") else r'\bSizeC="(\d+)"'
    found = re.search(pattern, description)
    count = 0 if found is None else int(found[1])
    return count if count > len(image.getbands()) else 0


def _are_deep_planes(image: Image.Image) -> bool:
    """16-bit colours, a plane each, whose bytes Pillow takes for pixels."""
    tags = _tiff_tags(image)
    planar = tags.get(_PLANAR, 1) == 2 and tags.get(_SAMPLES_PER_PIXEL, 1) > 1
    return bool(planar and max(tags.get(_BITS, (1,))) > 8)


def _has_more_samples(image: Image.Image) -> bool:
    """Whether a pixel has more numbers than Pillow tells of."""
    return bool(_tiff_tags(image).get(_SAMPLES_PER_PIXEL, 1) > len(image.getbands()))


def _is_cut(image: Image.Image) -> bool:
    """Whether Pillow is about to make 8 bits of 16. (torchvision's reader would keep them, but a damaged file makes it
    crash the process.)"""
    if not isinstance(image, ImageFile.ImageFile) or image.mode.startswith("I"):
        return False
    return any(";16" in str(tile.args) or _deep_ppm(tile.args) for tile in image.tile)


def _deep_ppm(arguments: Any) -> bool:
    """Of a colour PPM Pillow's decoder is told the mode and the largest number."""
    return isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[1], int) and arguments[1] > 255


def _picture(image: Image.Image, channels: int, bits: int) -> NDArray[Any]:
    if bits == 16 and image.mode.startswith("I"):
        grey = _16_bit_grey(image).astype(np.uint16)[..., None]
        return planes.with_bits(planes.fit(planes.Planes(grey), channels), bits)
    if channels not in _MODES:
        raise UnreadableImage(f"it has {len(image.getbands())} channel(s), which cannot be made {channels}")
    pixels = np.array(_converted(_to_8_bit(image, keep_alpha=channels == 4), _MODES[channels]))
    return planes.with_bits(pixels.reshape(*pixels.shape[:2], channels), bits)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata is no reason to lose the picture
        return image
    return image


def _to_8_bit(image: Image.Image, keep_alpha: bool) -> Image.Image:
    """A mode that Pillow converts faithfully: its own conversions cut 16-bit grey off at 255 and ignore alpha."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return Image.fromarray(((_16_bit_grey(image) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data and not keep_alpha:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _16_bit_grey(image: Image.Image) -> NDArray[np.int64]:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("32-bit pixels have no known range; save it with 8 or 16 bits")
    return values


def _reason(error: Exception, file: EncodedImage) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if _size(file) == 0 else "not an image, or of a kind Pillow cannot read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _size(file: EncodedImage) -> int:
    return os.path.getsize(file) if isinstance(file, str | Path) else file.seek(0, os.SEEK_END)


class _Quiet:
    """No warnings inside, in any thread, and the filters as they were when the last one has left.

    Readers warn of dirt that is either harmless or reported as the reason. `warnings.catch_warnings` alone would do if
    images were not decoded in several threads at once: the filters belong to the process.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._caught = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._caught.__exit__(None, None, None)


_quiet = _Quiet()
