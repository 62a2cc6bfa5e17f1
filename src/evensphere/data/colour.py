"""Colour operations for a whole batch, with parameters of each image's own: pure functions of float pixels in 0..1.

Each equals the function of torchvision.transforms.v2.functional that its docstring names first. The batch goes
through a few large kernels instead of each image through many small ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from evensphere.data.separable import Taps, filter_separably
from evensphere.ops.transfer import send

BRIGHTNESS, CONTRAST, SATURATION, HUE, NOTHING = range(5)  # the operations of a jitter


def blend(
    images: Float[Tensor, "batch c h w"],
    factor: Float[Tensor, " batch"],
    greys: tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]] | None = None,
) -> Float[Tensor, "batch c h w"]:
    """factor * image + to_mean * (its mean grey) + to_grey * (its grey), cut to 0..1, where greys = (to_mean, to_grey).

    Three of torchvision's functions in one, so that a batch may hold all of them: adjust_brightness by f is (f, 0, 0),
    adjust_contrast (f, 1 - f, 0) and adjust_saturation (f, 0, 1 - f); (1, 0, 0) changes nothing.

    factor: >= 0. greys: needs 1 or 3 channels; None is (0, 0).
    """
    blended = images * _per_image(factor)
    if greys is not None:
        to_mean, to_grey = greys
        grey = luma(images)
        # of each row first: torch lets threads share the sum of an image alone, in an order of their own
        mean = grey.mean(3, keepdim=True).mean(2, keepdim=True).mul_(_per_image(to_mean))
        blended += grey.mul_(_per_image(to_grey)).add_(mean)
    return blended.clamp_(0, 1)


def adjust_hue(images: Float[Tensor, "batch 3 h w"], shift: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 h w"]:
    """adjust_hue: hue turned by `shift` (-0.5 .. 0.5 of the colour circle; 0 changes nothing), its other values kept.

    Angles are counted in sixths of the circle from red, -3 .. 3, and kept multiplied by `extent`, the distance between
    a pixel's highest and lowest channel, so that nothing is divided. Between its lowest and highest value a channel
    falls with the distance to its own angle (red 0, green 2, blue 4): HSV -> RGB is
    clamp(2 - distance, 0, 1) * extent + low. From there back, |angle| = (green + blue - red - low) / extent + 1, with
    the sign of green - blue.
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    extent = (high - low)[:, None]
    rise = torch.sub(high, low, alpha=2)
    angle = (green - red).add_(blue).add_(rise).copysign_(green - blue)
    peaks = torch.arange(0, 6, 2, device=images.device)
    turn = (6 * shift[:, None] - peaks + 3).remainder(6) - 3  # -3 .. 3
    # 3 - distance on the circle, for an angle on the line between -6 and 6
    nearness = torch.addcmul(angle[:, None], extent, turn[:, :, None, None]).abs_().sub_(extent, alpha=3).abs_()
    return nearness.sub_(rise[:, None]).clamp_(low[:, None], high[:, None])


def luma(images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch 1 h w"]:
    """Grey, in new memory: 1 channel as it is, 3 with the weights of ITU-R 601, to the digits torchvision uses."""
    if images.shape[1] == 1:
        return images.clone()
    red, green, blue = images.split(1, dim=1)
    grey: Tensor = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return grey


LUMA = (0.2989, 0.587, 0.114)


def grayscale(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """rgb_to_grayscale: luma in all three channels."""
    return luma(images).repeat(1, 3, 1, 1)


def gaussian_blur(
    images: Float32[Tensor, "batch c h w"], kernel_size: int, sigma: Float[Tensor, " batch"]
) -> Float32[Tensor, "batch c h w"]:
    """gaussian_blur: a Gaussian of `sigma` pixels (> 0) cut to `kernel_size` (odd) pixels. Borders are mirrored, so the
    kernel's radius must be smaller than the image."""
    radius = kernel_size // 2
    offset = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1)

    def taps(length: int) -> Taps:
        rows = (torch.arange(length, device=images.device)[:, None] + offset).abs_()
        rows = (length - 1) - (rows - (length - 1)).abs_()
        shape = (len(images), length, kernel_size)
        return Taps(rows.int().expand(shape), kernel[:, None].expand(shape))

    return filter_separably(images, taps(images.shape[2]), taps(images.shape[3]))


def solarize(images: Float[Tensor, "batch c h w"], threshold: Float[Tensor, " batch"]) -> Float[Tensor, "batch c h w"]:
    """solarize: pixels at or above `threshold` (0..1) are inverted."""
    return torch.where(images >= _per_image(threshold), 1 - images, images)


def _per_image(factor: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    return factor.view(-1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Several operations as one matrix


class ColourMatrix(NamedTuple):
    """colour -> matrix @ colour + of_mean @ (the image's mean colour)."""

    matrix: Float[Tensor, "batch 3 3"]
    of_mean: Float[Tensor, "batch 3 3"]

    def to(self, device: torch.device) -> ColourMatrix:
        return ColourMatrix(*send(torch.stack(tuple(self)), device).unbind())

    @staticmethod
    def identity(batch: int) -> ColourMatrix:
        return ColourMatrix(torch.eye(3).repeat(batch, 1, 1), torch.zeros(batch, 3, 3))

    def then(self, step: Float[Tensor, "batch 3 3"], of_mean: Float[Tensor, "batch 3 3"]) -> ColourMatrix:
        """This one, then colour -> step @ colour + of_mean @ (mean colour by then)."""
        return ColourMatrix(step @ self.matrix, step @ self.of_mean + of_mean @ (self.matrix + self.of_mean))

    def blend(
        self, factor: Float[Tensor, " batch"], to_mean: Float[Tensor, " batch"], to_grey: Float[Tensor, " batch"]
    ) -> ColourMatrix:
        """This one, then what `blend` does, without the cut to 0..1."""
        factor, to_mean, to_grey = (x[:, None, None] for x in (factor, to_mean, to_grey))
        grey = torch.tensor(LUMA).expand(3, 3)
        return self.then(factor * torch.eye(3) + to_grey * grey, to_mean * grey)

    def turn(self, shift: Float[Tensor, " batch"]) -> ColourMatrix:
        """This one, then a rotation about the grey axis by `shift` of the circle, which is close to `adjust_hue`."""
        angle = 2 * torch.pi * shift[:, None, None]
        axis = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
        turned = angle.cos() * torch.eye(3) + (1 - angle.cos()) / 3 + angle.sin() * axis
        return self.then(turned, torch.zeros_like(turned))


def recolour(images: Float[Tensor, "batch 3 h w"], colour: ColourMatrix) -> Float[Tensor, "batch 3 h w"]:
    """The matrix for every pixel, cut to 0..1 at the end alone."""
    offset = (colour.of_mean @ images.mean((2, 3))[:, :, None])[..., None]
    recoloured = torch.empty_like(images)
    for channel in range(3):
        red, green, blue = colour.matrix[:, channel, :, None, None].unbind(1)
        mixed = torch.mul(images[:, 0], red, out=recoloured[:, channel])
        mixed.add_(offset[:, channel]).addcmul_(images[:, 1], green).addcmul_(images[:, 2], blue)
    return recoloured.clamp_(0, 1)
