"""From the bytes of an image file to pixels, whatever was found in the wild.

Folders found in the wild hold truncated downloads, text files called .jpg, palettes, alpha channels, CMYK and 16-bit
scans. Each either becomes the picture a viewer would show, or is reported with a reason; none is silently passed over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from evensphere.data.source import UnreadableImage

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")

EncodedImage = str | Path | IO[bytes]


def decode(file: EncodedImage, channels: int) -> UInt8[Tensor, "c h w"]:
    """The picture a viewer shows: upright by its EXIF orientation, alpha on white, the first frame of several.

    file: a path, or an open binary file that can seek.
    16-bit grey is divided by 257, so that full scale stays full scale. The pixels lie in memory with the channels last,
    as decoders leave them and as torchvision crops them fastest. Raises UnreadableImage with a one-line reason.
    """
    try:
        with Image.open(file) as image:
            image.load()  # by itself, so that what fails in `_upright` can only be metadata
            pixels = np.array(_converted(_to_8_bit(_upright(image)), "RGB" if channels == 3 else "L"))
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on malformed bytes
        raise UnreadableImage(_reason(error, file)) from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], channels)).permute(2, 0, 1)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which would copy it


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata is no reason to lose the picture
        return image
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """A mode that Pillow converts faithfully: its own conversions cut 16-bit grey off at 255 and ignore alpha."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage("32-bit pixels have no known range; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _reason(error: Exception, file: EncodedImage) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if _size(file) == 0 else "not an image, or of a kind Pillow cannot read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _size(file: EncodedImage) -> int:
    return os.path.getsize(file) if isinstance(file, str | Path) else file.seek(0, os.SEEK_END)
