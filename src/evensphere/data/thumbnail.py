"""Small pictures of images, for pages that show many."""

from __future__ import annotations

import io

from PIL import Image

from evensphere.data.contact_sheet import as_picture
from evensphere.data.source import Pixels

SIDE = 64  # pixels, at most
MOST_BYTES = 1_600

_QUALITIES = (80, 60, 40, 20)
_SIDES = (SIDE, 48, 32, 24)


def thumbnail(pixels: Pixels) -> bytes:
    """A WebP of the whole image, at most 64 pixels wide and high and 1,600 bytes long: what does not fit is drawn with
    less quality, then smaller. Images that are smaller keep their size."""
    picture = as_picture(pixels)
    for side in _SIDES:
        small = _shrunk(picture, side)
        for quality in _QUALITIES:
            webp = io.BytesIO()
            small.save(webp, format="webp", quality=quality, method=4)
            if webp.tell() <= MOST_BYTES:
                return webp.getvalue()
    return webp.getvalue()


def _shrunk(picture: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
