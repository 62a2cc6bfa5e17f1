"""Random resized crops: which part of an image a view shows, and its pixels at the size the encoder wants.

Sets of one size are cropped by the batch, on any device; images of different sizes are cropped one at a time by the
loader's workers. Both sides ask `crop_boxes`, so an image gets the same crop whoever cuts it.

Letters in this file: B images, C channels, H and W the height and width of the images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64, UInt8
from torch import Tensor

from evensphere.data.separable import Taps, filter_separably
from evensphere.ops.draw import uniform

TRIES = 10  # proposals per box before the central one is taken, as in torchvision

# ---------------------------------------------------------------------------------------------------------------------
# Which part


def crop_boxes(
    seed: int,
    epoch: int,
    view: int,
    index: Int64[Tensor, " batch"],
    heights: int | Int64[Tensor, " batch"],
    widths: int | Int64[Tensor, " batch"],
    scale: Sequence[float],
    ratio: Sequence[float] = (3 / 4, 4 / 3),
) -> Int64[Tensor, "batch 4"]:
    """A random box (top, left, height, width) in pixels for each image, distributed as torchvision's RandomResizedCrop.

    The area is uniform in `scale` (shares of the image's area), the aspect ratio width/height log-uniform in `ratio`;
    the first of ten proposals that fits is placed uniformly. If none fits the box is the largest central one whose
    aspect ratio is allowed. A box depends on (seed, epoch, view, index, the image's own size) and on nothing else.

    index: the images' numbers in the source; the boxes are on its device.
    heights, widths: of the images in pixels, at least 1.
    """
    draws = uniform(seed, f"crop/{view}", epoch, index, 2 * TRIES + 2).double()
    height = torch.as_tensor(heights, device=index.device).expand_as(index)
    width = torch.as_tensor(widths, device=index.device).expand_as(index)
    proposals = _proposals(draws[:, :TRIES], draws[:, TRIES : 2 * TRIES], height * width, scale, ratio)
    fits = ((proposals > 0) & (proposals <= torch.stack([height, width])[..., None])).all(0)
    first = fits.byte().argmax(1, keepdim=True)  # the first maximum is the first proposal that fits
    central = _central(height, width, ratio)
    found = fits.any(1)
    h, w = torch.where(found, proposals.gather(2, first.expand(2, -1, 1))[..., 0], central)
    top = torch.where(found, draws[:, -2] * (height - h + 1), (height - h) // 2)
    left = torch.where(found, draws[:, -1] * (width - w + 1), (width - w) // 2)
    return torch.stack([top.long(), left.long(), h, w], dim=1)


def _proposals(
    area_draw: Float[Tensor, "batch tries"],
    ratio_draw: Float[Tensor, "batch tries"],
    area: Int64[Tensor, " batch"],
    scale: Sequence[float],
    ratio: Sequence[float],
) -> Int64[Tensor, "2 batch tries"]:
    """Heights and widths. In float64, so that a last bit that differs between machines does not change the rounding."""
    target = area[:, None] * (scale[0] + (scale[1] - scale[0]) * area_draw)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * ratio_draw)
    return torch.stack([target / aspect, target * aspect]).sqrt().round().long()


def _central(
    height: Int64[Tensor, " batch"], width: Int64[Tensor, " batch"], ratio: Sequence[float]
) -> Int64[Tensor, "2 batch"]:
    """Height and width of the largest box whose aspect ratio is allowed, for images too narrow or too flat."""
    tallest = (width / ratio[0]).round().long().clamp(min=1)
    widest = (height * ratio[1]).round().long().clamp(min=1)
    return torch.stack([torch.minimum(height, tallest), torch.minimum(width, widest)])


# ---------------------------------------------------------------------------------------------------------------------
# Its pixels, by the batch


def resized_crop(
    images: UInt8[Tensor, "batch c h w"] | Float[Tensor, "batch c h w"],
    boxes: Int64[Tensor, "batch 4"],
    size: int,
    interpolation: str = "bilinear",
    flip: Bool[Tensor, " batch"] | None = None,
) -> Float32[Tensor, "batch c {size} {size}"]:
    """Each image's own box at size x size, antialiased, then mirrored left to right where `flip` says so.

    Equal to torchvision's `resized_crop(..., antialias=True)` on float images. uint8 images come out as float32 in
    0..1; bicubic overshoots these bounds a little.

    boxes, flip: on the CPU, where reading them makes no GPU wait.
    interpolation: "bilinear" or "bicubic" (a = -0.5, as in Pillow).
    """
    return cut_with(images, *crop_taps(boxes, size, interpolation, flip, images.device))


def unit(pixels: UInt8[Tensor, "*shape"] | Float32[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Pixels in 0..1, as a tensor of their own: uint8 is divided by 255, floats are in 0..1 already."""
    return pixels.clone() if pixels.is_floating_point() else pixels.to(torch.float32).div_(255)


def crop_taps(
    boxes: Int64[Tensor, "batch 4"],
    size: int,
    interpolation: str,
    flip: Bool[Tensor, " batch"] | None,
    device: torch.device,
) -> tuple[Taps, Taps]:
    """What `cut_with` needs on `device` to cut each image's box: of which rows and columns each pixel is made."""
    taps = _resampling(boxes[:, :2].T.flatten(), boxes[:, 2:].T.flatten(), size, interpolation)
    rows, columns = taps.of(slice(len(boxes))), taps.of(slice(len(boxes), None))
    if flip is not None:
        mirrored = flip[:, None, None]
        columns = Taps(*(torch.where(mirrored, part.flip(1), part) for part in columns))
    return rows.to(device), columns.to(device)


def whole_taps(size: int, flip: Bool[Tensor, " batch"]) -> tuple[Taps, Taps]:
    """`crop_taps` of images that are their crops already."""
    place = torch.arange(size, dtype=torch.int32)
    rows = place.expand(len(flip), size)
    columns = torch.where(flip[:, None], place.flip(0), place)
    weights = torch.ones(len(flip), size, 1)
    return Taps(rows[..., None], weights), Taps(columns[..., None], weights)


def cut_with(
    images: UInt8[Tensor, "batch c h w"] | Float[Tensor, "batch c h w"], rows: Taps, columns: Taps
) -> Float32[Tensor, "batch c height width"]:
    """The crops of `crop_taps`; uint8 images come out in 0..1."""
    if not images.is_floating_point():
        rows = Taps(rows.rows, rows.weights / 255)  # cheaper than on the pixels
    return filter_separably(images.to(torch.float32), rows, columns)


def _resampling(start: Int64[Tensor, " batch"], extent: Int64[Tensor, " batch"], size: int, interpolation: str) -> Taps:
    """Which input pixels, of start .. start + extent - 1 in its row, each of `size` output pixels is made of.

    Output i is centred on (i + 1/2) extent/size in the crop. Both centres are multiples of 1/(2 size), so their
    distance is first counted in that unit, where it is a whole number, and rounded once. Where in the image the crop
    lies makes no difference to its weights, and a batch of small images has few extents: each is worked out once.
    """
    extents, which = extent.unique(return_inverse=True)
    pixel, weights = _resampling_of_extents(extents, size, interpolation)
    return Taps(pixel[which].add_(start[:, None, None].int()), weights[which])


def _resampling_of_extents(
    extent: Int64[Tensor, " extents"], size: int, interpolation: str
) -> tuple[Int32[Tensor, "extents out taps"], Float32[Tensor, "extents out taps"]]:
    """`_resampling` of crops that begin at pixel 0."""
    reach = 1 if interpolation == "bilinear" else 2  # of the filter, in pixels of the coarser grid
    most = math.ceil(2 * reach * max(int(extent.max()), size) / size)  # pixels within reach
    extent = extent[:, None].double()
    unit = 2 * extent.clamp(min=size)  # the filter grows with the crop when it shrinks it: antialiasing
    centre = torch.arange(1, 2 * size, 2) * extent
    first = (centre - reach * unit - size).div_(2 * size).floor_().add_(1)
    tap = torch.arange(most, dtype=torch.float32)[:, None, None]
    distance = ((2 * first + 1) * size - centre).float().add(tap, alpha=2 * size).abs_()
    extent, unit, pixel = extent.float(), unit.float(), first.float() + tap
    weights = _triangle(distance, unit) if interpolation == "bilinear" else _cubic(distance.div_(unit))
    weights.mul_(pixel >= 0).mul_(pixel < extent)
    weights.div_(_total(weights))
    pixel = torch.minimum(pixel.clamp_(min=0), extent - 1)
    return pixel.int().permute(1, 2, 0).contiguous(), weights.permute(1, 2, 0).contiguous()


def _total(weights: Float[Tensor, "taps batch out"]) -> Float[Tensor, "batch out"]:
    """Tap by tap, since torch's sum has an order that depends on how many numbers there are: an image's crop would
    differ in its last bits by the other images of its batch."""
    total = weights[0].clone()
    for of_tap in weights[1:]:
        total += of_tap
    return total


def _triangle(
    distance: Float[Tensor, "taps batch out"], unit: Float[Tensor, "batch 1"]
) -> Float[Tensor, "taps batch out"]:
    return distance.neg_().add_(unit).clamp_(min=0)


def _cubic(d: Float[Tensor, "taps batch out"]) -> Float[Tensor, "taps batch out"]:
    """Keys' cubic convolution with a = -0.5 (1981): a polynomial up to distance 1, another up to 2, zero beyond."""
    d.clamp_(max=2)
    near = (1.5 * d).sub_(2.5).mul_(d).mul_(d).add_(1)
    far = (-0.5 * d).add_(2.5).mul_(d).sub_(4).mul_(d).add_(2)
    return torch.where(d <= 1, near, far)


# ---------------------------------------------------------------------------------------------------------------------
# Its pixels, one image at a time


def cut_crop(
    image: UInt8[Tensor, "c h w"] | Float32[Tensor, "c h w"],
    box: Int64[Tensor, " 4"],
    size: int,
    interpolation: str = "bilinear",
) -> UInt8[Tensor, "c {size} {size}"] | Float32[Tensor, "c {size} {size}"]:
    """One image's box at size x size, antialiased: what `resized_crop` gives, for uint8 up to the rounding. Neither
    leaves 0..255 and 0..1."""
    from torchvision.transforms.v2 import InterpolationMode  # a second of start-up that pixels in memory do without
    from torchvision.transforms.v2 import functional as tv

    top, left, height, width = box.tolist()
    mode = InterpolationMode(interpolation)
    crop: Tensor = tv.resized_crop(image, top, left, height, width, [size, size], mode, antialias=True)
    return crop.clamp(0, 1) if crop.is_floating_point() else crop


def resize_and_center(
    images: UInt8[Tensor, "*batch c h w"] | Float32[Tensor, "*batch c h w"], size: int
) -> UInt8[Tensor, "*batch c {size} {size}"] | Float32[Tensor, "*batch c {size} {size}"]:
    """The central square, its side resized to `size` (antialiased bilinear): what evaluation sees of an image.

    An image that is size x size already comes back as it is.
    """
    if images.shape[-2:] == (size, size):
        return images
    from torchvision.transforms.v2 import functional as tv

    central: Tensor = tv.center_crop(tv.resize(images, [size], antialias=True), [size, size])
    return central
