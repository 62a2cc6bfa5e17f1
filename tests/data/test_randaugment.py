"""Every operation against Pillow, the policy against itself written once more for one image, and who gets how much."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from evensphere.data import randaugment as ours
from evensphere.data.augment import VIEWS, Views
from evensphere.data.randaugment import OPERATIONS, Operation
from evensphere.data.source import Batch
from evensphere.errors import InputError
from evensphere.ops.draw import uniform

COUNT = 24
KINDS = ["noise", "dark noise", "few levels", "black", "white", "one pixel", "grey noise", "narrow", "wide", "tiny"]


def images(kind: str, channels: int = 3) -> Tensor:
    """uint8 images: random and degenerate ones."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (COUNT, channels, 11, 14), generator=generator)
    spot = torch.zeros_like(noise)
    spot[:, :, 3, 4] = 200
    return {
        "noise": noise,
        "dark noise": noise // 5 + 7,
        "few levels": noise // 64 * 85,
        "black": torch.zeros_like(noise),
        "white": torch.full_like(noise, 255),
        "one pixel": spot,
        "grey noise": noise[:, :1].expand(-1, channels, -1, -1),
        "narrow": noise[:, :, :, :1],
        "wide": torch.randint(0, 256, (COUNT, channels, 7, 60), generator=generator),
        "tiny": noise[:, :, :2, :2],
    }[kind].byte()


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())


def from_pillow(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def moved(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix)


# what Pillow makes of an image with a value
PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear_x": lambda image, v: moved(1, v, 0, 0, 1, 0)(image),
    "shear_y": lambda image, v: moved(1, 0, 0, v, 1, 0)(image),
    "translate_x": lambda image, v: moved(1, 0, v * image.width, 0, 1, 0)(image),
    "translate_y": lambda image, v: moved(1, 0, 0, 0, 1, v * image.height)(image),
    "rotate": lambda image, v: image.rotate(v),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "solarize": lambda image, v: ImageOps.solarize(image, v),  # type: ignore[arg-type]  # takes fractions
    "posterize": lambda image, v: ImageOps.posterize(image, max(1, int(v))),
    "contrast": lambda image, v: ImageEnhance.Contrast(image).enhance(v),
    "color": lambda image, v: ImageEnhance.Color(image).enhance(v),
    "brightness": lambda image, v: ImageEnhance.Brightness(image).enhance(v),
    "sharpness": lambda image, v: ImageEnhance.Sharpness(image).enhance(v),
}
BY_NAME = {operation.apply.__name__: operation for operation in OPERATIONS}


def values(operation: Operation) -> Tensor:
    """From magnitude 0 to 30, of both signs where the operation has them."""
    spread = torch.linspace(operation.low, operation.high, COUNT)
    return torch.where(torch.arange(COUNT) % 2 == 0, spread, -spread) if operation.signed else spread


# --- the operations


def test_the_operations_and_ranges_are_the_published_ones() -> None:
    published = {
        "shear_x": (0, 0.6), "shear_y": (0, 0.6), "translate_x": (0, 0.66), "translate_y": (0, 0.66), "rotate": (0, 60),
        "autocontrast": (0, 1), "invert": (0, 1), "equalize": (0, 1), "solarize": (0, 110), "posterize": (4, 8),
        "contrast": (0.1, 1.9), "color": (0.1, 1.9), "brightness": (0.1, 1.9), "sharpness": (0.1, 1.9),
        "cutout": (0, 0.4),
    }  # fmt: skip
    assert {name: (operation.low, operation.high) for name, operation in BY_NAME.items()} == published
    assert [name for name, one in BY_NAME.items() if one.signed] == [*list(published)[:5]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PILLOW)
def test_an_operation_equals_pillows(name: str, kind: str, channels: int) -> None:
    pixels, value = images(kind, channels), values(BY_NAME[name])
    before = pixels.clone()
    result = BY_NAME[name].apply(pixels, value)
    assert torch.equal(pixels, before), "the operation changed its input"
    assert result.dtype == torch.uint8
    for image, v, mine in zip(pixels, value.tolist(), result, strict=True):
        theirs = from_pillow(PILLOW[name](to_pillow(image), v))
        difference = (mine.int() - theirs.int()).abs().max()
        assert difference <= (1 if name == "autocontrast" else 0), (v, difference)


@pytest.mark.parametrize("name", PILLOW)
def test_memory_format_makes_no_difference(name: str) -> None:
    operation = BY_NAME[name]
    scattered = images("noise").contiguous(memory_format=torch.channels_last)
    value = values(operation)
    assert torch.equal(operation.apply(scattered, value), operation.apply(images("noise"), value))


@pytest.mark.parametrize("name", PILLOW)
def test_channels_are_treated_alike_where_there_are_four(name: str) -> None:
    operation = BY_NAME[name]
    same = images("noise", 1).expand(-1, 4, -1, -1)
    four, one = (operation.apply(pixels, values(operation)) for pixels in (same, images("noise", 1)))
    assert torch.equal(four, one.expand_as(four))


@pytest.mark.parametrize("channels", [1, 3])
def test_cutout_hides_the_pixels_near_its_centre(channels: int) -> None:
    pixels, value = images("wide", channels), values(BY_NAME["cutout"])
    fill = torch.tensor([9, 99, 199][:channels], dtype=torch.uint8)
    centre = torch.rand(COUNT, 2, generator=torch.Generator().manual_seed(1))
    result = ours.cutout(pixels, value, centre, fill)
    hidden = 0
    for i, (v, (x, y)) in enumerate(zip(value.tolist(), centre.tolist(), strict=True)):
        for row in range(7):
            for column in range(60):
                half = v * 60 / 2
                inside = abs(column + 0.5 - x * 60) < half and abs(row + 0.5 - y * 7) < half
                hidden += inside
                expected = fill if inside else pixels[i, :, row, column]
                assert torch.equal(result[i, :, row, column], expected)
    assert hidden > 1000


# --- the policy

NOTHING: dict[str, Any] = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter_probability": 0.0,
    "gray": 0.0,
}


def batch_of(count: int, size: int = 12, channels: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.randperm(10 * count, generator=generator)[:count])


def bytes_of(views: Views, view: Tensor) -> Tensor:
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (views.mean, views.std))
    return (view * std + mean).mul(255).round().byte()


def plainly(views: Views, image: Tensor, weight: float, epoch: int, view: int, index: int) -> Tensor:
    """RandAugment of one image, operation by operation with Pillow."""
    count, (least, most) = views.randaugment_operations, views.randaugment_magnitude
    draws = uniform(views.seed, f"randaugment/{view}", epoch, torch.tensor([index]), 1 + 5 * count)[0].tolist()
    magnitude = least + (most - least) * weight * (draws[0] if views.randaugment_random else 1)
    for chance, choice, sign, x, y in zip(*[iter(draws[1:])] * 5, strict=True):
        if chance >= weight:
            continue
        operation = OPERATIONS[math.floor(choice * 15)]
        value = magnitude / 30 * (operation.high - operation.low) + operation.low
        value = -value if operation.signed and sign < 0.5 else value
        name = operation.apply.__name__
        if name == "cutout":
            fill = torch.tensor(views.mean).mul(255).round().byte()
            image = ours.cutout(image[None], torch.tensor([value]), torch.tensor([[x, y]]), fill)[0]
        else:
            image = from_pillow(PILLOW[name](to_pillow(image), value))
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["one operation", "large sets"])
def test_views_equal_the_policy_written_with_pillow(policy: str, channels: int) -> None:
    grey: dict[str, Any] = {"mean": (0.3,), "std": (0.4,), "jitter": (0.0,) * 4} if channels == 1 else {}
    large = {name: value for name, value in VIEWS["photos"].items() if name.startswith("randaugment")}
    assert large["randaugment_operations"] == 2
    views = Views(12, **NOTHING, **grey, **(large if policy == "large sets" else {}), seed=3)
    batch = batch_of(300, channels=channels)
    weight = torch.rand(300, generator=torch.Generator().manual_seed(4))
    changed = 0
    for number, view in enumerate(views(batch, 5, weight)):
        result = bytes_of(views, view)
        for i, index in enumerate(batch.index.tolist()):
            expected = plainly(views, batch.images[i], weight[i].item(), 5, number, index)
            difference = (result[i].int() - expected.int()).abs()
            # float32 and Python's float64 may choose another neighbour or level at the edge between two
            assert (difference > 1).float().mean() < 0.02
            changed += not torch.equal(expected, batch.images[i])
    assert changed > 200


def test_without_strength_the_views_keep_every_bit() -> None:
    batch, views = batch_of(40), Views(12, blur=0.5, solarize=0.3)
    plain = views(batch, 1)
    for strength in (None, torch.zeros(40)):
        assert all(torch.equal(a, b) for a, b in zip(views(batch, 1, strength), plain, strict=True))
    some = torch.zeros(40)
    some[7] = 1
    for a, b in zip(views(batch, 1, some), plain, strict=True):
        others = torch.arange(40) != 7
        assert torch.equal(a[others], b[others]), "an image's strength is nobody else's business"
        assert not torch.equal(a[7], b[7])


def test_operations_are_equally_likely_and_met_with_the_probability_of_the_weight() -> None:
    """Every operation is made to paint the image with its own number."""
    views = Views(4, **NOTHING)
    batch = Batch(torch.full((6000, 3, 4, 4), 255, dtype=torch.uint8), torch.arange(6000))
    painted = tuple(
        operation._replace(apply=lambda some, *_, level=number: torch.full_like(some, level))
        for number, operation in enumerate(OPERATIONS)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "OPERATIONS", painted)
        first, second = (bytes_of(views, view)[:, 0, 0, 0] for view in views(batch, 0, torch.full((6000,), 0.75)))
    met = first < 255
    assert met.float().mean() == pytest.approx(0.75, abs=0.02)
    counts = torch.bincount(first[met].int(), minlength=15)
    assert len(counts) == 15
    assert ((counts - 300).abs() < 5 * 300**0.5).all()
    both = met & (second < 255)
    assert both.float().mean() == pytest.approx(0.75**2, abs=0.03), "views are drawn independently"
    assert (first[both] == second[both]).float().mean() == pytest.approx(1 / 15, abs=0.02)


@pytest.mark.parametrize(
    ("large", "expected"), [(False, [10.0, 15.0, 30.0]), (True, [0.0, 7.5, 30.0])], ids=["cifar", "large sets"]
)
def test_magnitudes_follow_the_weight(large: bool, expected: list[float]) -> None:
    """Read off what brightness makes of grey pixels: value = 0.1 + 1.8 m / 30."""
    large_sets = {name: value for name, value in VIEWS["photos"].items() if name.startswith("randaugment")}
    views = Views(4, **NOTHING, **(large_sets | {"randaugment_operations": 1} if large else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ours, "OPERATIONS", (BY_NAME["brightness"],))
        for weight, magnitude in zip((0.001, 0.25, 1.0), expected, strict=True):
            pixels = torch.full((4000, 3, 4, 4), 100, dtype=torch.uint8)
            view = bytes_of(views, views(Batch(pixels, torch.arange(4000)), 0, torch.full((4000,), weight))[0])
            level = view[:, 0, 0, 0][view[:, 0, 0, 0] != 100].float()  # those that met it
            found = (level / 100 - 0.1) / 1.8 * 30
            if large:  # uniform up to the largest
                assert found.max() == pytest.approx(magnitude, abs=0.4)
                if weight > 0.01:
                    assert found.mean() == pytest.approx(magnitude / 2, rel=0.1)
            elif len(found):
                assert torch.allclose(found, torch.tensor(magnitude), atol=0.4)


def test_crops_cut_by_workers_meet_the_same_operations() -> None:
    batch, views = batch_of(40, size=12), Views(12, **NOTHING)
    crops = tuple(torch.stack(views.crops(list(batch.images), 2, view, batch.index)) for view in range(2))
    strength = torch.ones(40)
    for a, b in zip(views(Batch(crops, batch.index), 2, strength), views(batch, 2, strength), strict=True):
        assert torch.equal(bytes_of(views, a), bytes_of(views, b))


@pytest.mark.parametrize(
    "options",
    [
        {"randaugment_operations": 0},
        {"randaugment_magnitude": (10.0, 31.0)},
        {"randaugment_magnitude": (20.0, 10.0)},
        {"randaugment_magnitude": (10.0,)},
    ],
)
def test_mistakes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="randaugment"):
        Views(12, **options)
