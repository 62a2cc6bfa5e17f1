"""BCL's RandAugment for a whole batch: fifteen operations with a strength of its own for every image.

First the operations, pure functions of uint8 images and one value per image, each equal to what the reference code does
with Pillow (bit for bit, but for `autocontrast`, which may differ by one level where Pillow's floating point falls just
below a whole number). Then `randaugment`, which draws operations and values and applies them.

Ranges are BCL's own (Zhou et al., "Contrastive Learning with Boosted Memorization", ICML 2022), not torchvision's.
Images may have any number of channels; the grey of three is Pillow's luma, that of any other number is their mean.
On one channel `color` therefore changes nothing, as in Pillow.

Not as in the reference code, where the paper does not ask for it:
* Cutout's square is centred on its point and cut off at the border, and filled with the views' mean colour. (Theirs
  is a pixel larger, keeps its size at the left and top border, and always has CIFAR's mean colour.)
* A random magnitude is drawn for each view (theirs is drawn once and shared by both).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor
from torch.nn.functional import conv2d

from evensphere.data.subbatch import update

Images = UInt8[Tensor, "batch c h w"]
Value = Float[Tensor, " batch"]

# ---------------------------------------------------------------------------------------------------------------------
# Where pixels go: nearest neighbour, black from outside


def shear_x(images: Images, value: Value) -> Images:
    """Row y moves left by value * y pixels."""
    return _affine(images, _inverse_map(value, xy=value))


def shear_y(images: Images, value: Value) -> Images:
    """Column x moves up by value * x pixels."""
    return _affine(images, _inverse_map(value, yx=value))


def translate_x(images: Images, value: Value) -> Images:
    """To the left by a share of the width."""
    return _affine(images, _inverse_map(value, x=value.double() * images.shape[3]))


def translate_y(images: Images, value: Value) -> Images:
    """Upwards by a share of the height."""
    return _affine(images, _inverse_map(value, y=value.double() * images.shape[2]))


def rotate(images: Images, value: Value) -> Images:
    """Counter-clockwise by `value` degrees about the centre."""
    h, w = images.shape[2:]
    angle = -torch.deg2rad(value.double())
    cos, sin = angle.cos(), angle.sin()
    x, y = w / 2 - cos * w / 2 - sin * h / 2, h / 2 + sin * w / 2 - cos * h / 2
    return _affine(images, _inverse_map(value, xx=cos, xy=sin, x=x, yx=-sin, yy=cos, y=y))


def _inverse_map(value: Value, **entries: Tensor) -> Float[Tensor, "6 batch"]:
    """The pixel that each output pixel shows: (xx X + xy Y + x, yx X + yy Y + y); the identity where nothing is said.

    In float64: float32 would round some pixels to another neighbour than Pillow does.
    """
    identity = {"xx": 1.0, "xy": 0.0, "x": 0.0, "yx": 0.0, "yy": 1.0, "y": 0.0}
    return torch.stack([entries.get(name, torch.full_like(value, one)).double() for name, one in identity.items()])


def _affine(images: Images, inverse: Float[Tensor, "6 batch"]) -> Images:
    """Pillow's affine transform, in its fixed point with 16 binary places, for all images in one pass."""
    b, c, h, w = images.shape
    xx, xy, x, yx, yy, y = inverse
    x, y = x + 0.5 * (xx + xy), y + 0.5 * (yx + yy)  # centres of pixels lie at half numbers
    fixed = torch.stack([xx, xy, x, yx, yy, y]).mul(1 << 16).add(0.5).floor().long()
    xx, xy, x, yx, yy, y = fixed.to(images.device)[:, :, None, None]
    row, column = torch.arange(h, device=images.device)[:, None], torch.arange(w, device=images.device)
    source_x, source_y = (xx * column + xy * row + x) >> 16, (yx * column + yy * row + y) >> 16
    inside = (source_x >= 0) & (source_x < w) & (source_y >= 0) & (source_y < h)
    place = torch.where(inside, source_y * w + source_x, 0).view(b, 1, h * w).expand(b, c, h * w)
    moved = images.reshape(b, c, h * w).gather(2, place).view(b, c, h, w)
    return torch.where(inside[:, None], moved, 0)


def cutout(images: Images, value: Value, centre: Float[Tensor, "batch 2"], fill: UInt8[Tensor, " c"]) -> Images:
    """A square of `fill` whose side is a share of the width, around `centre` (x and y as shares of width and height).

    A pixel belongs to the square if its own centre does; what sticks out at a border is cut off.
    """
    h, w = images.shape[2:]
    reach = value * w / 2
    hidden = None
    for size, middle in ((h, centre[:, 1] * h), (w, centre[:, 0] * w)):
        near = (torch.arange(size) + 0.5 - middle[:, None]).abs() < reach[:, None]
        hidden = near if hidden is None else hidden[:, None, :, None] & near[:, None, None, :]
    assert hidden is not None
    return torch.where(hidden.to(images.device), fill.to(images.device)[:, None, None], images)


# ---------------------------------------------------------------------------------------------------------------------
# What becomes of their values


def autocontrast(images: Images, value: Value) -> Images:
    """Each channel stretched to 0..255; `value` is not used."""
    low, high = images.amin((2, 3), keepdim=True).int(), images.amax((2, 3), keepdim=True).int()
    stretched = (images.int() - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, images.int()).byte()


def equalize(images: Images, value: Value) -> Images:
    """Each channel's histogram made flat; `value` is not used."""
    b, c, h, w = images.shape
    levels = images.reshape(b * c, h * w).long()
    counts = levels.new_zeros(b * c, 256).scatter_add_(1, levels, torch.ones_like(levels))
    brightest = counts.gather(1, levels.amax(1, keepdim=True))
    step = (h * w - brightest) // 255  # 0 where there is too little to spread
    below = counts.cumsum(1) - counts
    table = (step // 2 + below) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), torch.arange(256, device=images.device))
    return table.gather(1, levels).view(b, c, h, w).byte()


def invert(images: Images, value: Value) -> Images:
    """255 - pixel; `value` is not used."""
    return 255 - images


def solarize(images: Images, value: Value) -> Images:
    """Pixels at or above `value` (0..255) are inverted."""
    return torch.where(images < _per_image(value, images), images, 255 - images)


def posterize(images: Images, value: Value) -> Images:
    """Only the upper `value` bits of each pixel are kept, rounded down and at least 1."""
    dropped = 8 - value.long().clamp(1, 8)
    return images & _per_image(256 - (1 << dropped), images).byte()


def contrast(images: Images, value: Value) -> Images:
    """Away from the image's mean grey by the factor `value`; 1 changes nothing."""
    grey = _grey(images)
    count = grey[0].numel()
    mean = (2 * grey.sum((1, 2, 3), keepdim=True) + count) // (2 * count)  # rounded
    return _blend(mean, images, value)


def color(images: Images, value: Value) -> Images:
    """Away from each pixel's grey by the factor `value`; 1 changes nothing."""
    return _blend(_grey(images), images, value)


def brightness(images: Images, value: Value) -> Images:
    """Pixels times `value`."""
    return _blend(torch.zeros_like(images), images, value)


def sharpness(images: Images, value: Value) -> Images:
    """Away from the smoothed image by the factor `value`; 1 changes nothing. A border of one pixel stays as it is."""
    b, c, h, w = images.shape
    if min(h, w) < 3:
        return images
    kernel = torch.ones(1, 1, 3, 3, device=images.device)
    kernel[..., 1, 1] = 5
    sums = conv2d(images.reshape(b * c, 1, h, w).float(), kernel).view(b, c, h - 2, w - 2)
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (sums / 13 + 0.5).byte()
    return _blend(smooth, images, value)


def _blend(start: Tensor, end: Images, factor: Value) -> Images:
    """From `start` (factor 0) to `end` (factor 1) and beyond, rounded down as Pillow does."""
    start = start.float()
    blended: Tensor = (end.float() - start).mul_(_per_image(factor, end)).add_(start)
    return blended.clamp_(0, 255).byte()


def _grey(images: Images) -> Int64[Tensor, "batch 1 h w"]:
    channels = images.long()
    if images.shape[1] != 3:
        return channels.sum(1, keepdim=True) // images.shape[1]
    red, green, blue = channels.split(1, dim=1)
    luma: Tensor = 19595 * red + 38470 * green + 7471 * blue
    return (luma + (1 << 15)) >> 16


def _per_image(value: Tensor, images: Images) -> Tensor:
    return value.to(images.device).view(-1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# The policy


class Operation(NamedTuple):
    """low, high: the value at magnitude 0 and at the largest. signed: half of the values are turned negative."""

    apply: Callable[..., Tensor]
    low: float
    high: float
    signed: bool = False


OPERATIONS = (
    Operation(shear_x, 0, 0.6, signed=True),
    Operation(shear_y, 0, 0.6, signed=True),
    Operation(translate_x, 0, 0.66, signed=True),
    Operation(translate_y, 0, 0.66, signed=True),
    Operation(rotate, 0, 60, signed=True),
    Operation(autocontrast, 0, 1),
    Operation(invert, 0, 1),
    Operation(equalize, 0, 1),
    Operation(solarize, 0, 110),
    Operation(posterize, 4, 8),
    Operation(contrast, 0.1, 1.9),
    Operation(color, 0.1, 1.9),
    Operation(brightness, 0.1, 1.9),
    Operation(sharpness, 0.1, 1.9),
    Operation(cutout, 0, 0.4),
)
LARGEST = 30  # magnitude


def randaugment(
    pixels: Float32[Tensor, "batch c h w"],
    weight: Float[Tensor, " batch"],
    draw: Callable[[str, int], Float[Tensor, "batch count"]],
    operations: int,
    magnitude: Sequence[float],
    random_magnitude: bool,
    fill: Sequence[float],
) -> Float32[Tensor, "batch c h w"]:
    """`operations` times: with a probability of its weight, an image meets one of the fifteen operations; `pixels` is
    used up.

    pixels: in 0..1; those of an image that meets an operation are rounded to whole levels, those of the others stay.
    weight: in [0, 1], on the CPU. draw: (purpose, count) -> count numbers in [0, 1) for each image.
    magnitude: (m0, m1), of LARGEST. An image of weight w has the magnitude m = m0 + (m1 - m0) w, or with
        `random_magnitude` m0 + (m1 - m0) w U(0, 1). The operation's value is low + (high - low) m / LARGEST.
    fill: cutout's colour, one number in 0..1 per channel.
    """
    colour = torch.tensor(fill).mul(255).round().byte()
    draws = draw("randaugment", 1 + 5 * operations)
    rise = weight * draws[:, 0] if random_magnitude else weight
    level = (magnitude[0] + (magnitude[1] - magnitude[0]) * rise) / LARGEST
    for round_of_draws in draws[:, 1:].split(5, dim=1):
        chance, choice, sign = round_of_draws[:, :3].unbind(1)
        number = torch.where(chance < weight, (choice * len(OPERATIONS)).long(), -1)
        for i, operation in enumerate(OPERATIONS):
            concerned = number == i
            value = operation.low + (operation.high - operation.low) * level
            value = torch.where(sign < 0.5, -value, value) if operation.signed else value
            parameters = [value[concerned]]
            if operation.apply is cutout:
                parameters += [round_of_draws[concerned, 3:], colour]
            pixels = update(pixels, concerned, partial(_on_levels, operation.apply, parameters))
    return pixels


def _on_levels(
    operation: Callable[..., Tensor], parameters: Sequence[Tensor], pixels: Float32[Tensor, "batch c h w"]
) -> Float32[Tensor, "batch c h w"]:
    """An operation on uint8 images, on pixels in 0..1."""
    levels = pixels.mul(255).round_().clamp_(0, 255).byte()
    return operation(levels, *parameters).float().div_(255)
