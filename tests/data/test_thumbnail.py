"""Small pictures: small, of the whole image, whatever it is."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image

from evensphere.data.thumbnail import MOST_BYTES, SIDE, thumbnail


def opened(webp: bytes) -> Image.Image:
    return Image.open(io.BytesIO(webp))


@pytest.mark.parametrize("shape", [(3, 300, 200), (1, 28, 28), (4, 64, 65), (7, 9, 500), (3, 1, 1), (3, 2000, 3)])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_kind_of_image_has_one(shape: tuple[int, int, int], bits: int) -> None:
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    webp = thumbnail(noise if bits == 16 else (noise * 255).byte())
    assert len(webp) <= MOST_BYTES, "even of noise"
    picture = opened(webp)
    assert picture.format == "WEBP"
    assert max(picture.size) <= SIDE
    assert picture.width <= shape[2]


def test_it_shows_the_image() -> None:
    pixels = torch.zeros(3, 128, 128, dtype=torch.uint8)
    pixels[0, :, :64] = 255
    picture = opened(thumbnail(pixels)).convert("RGB")
    assert picture.size == (64, 64)
    left, right = picture.getpixel((8, 32)), picture.getpixel((56, 32))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > 200
    assert right[0] < 50
