"""Views of images: random crop, flip and colour, for a whole batch at once and on any device.

First the colour operations, pure functions with one parameter per image, each equal to the function of the same name in
torchvision.transforms.v2.functional; then `Views`, the policy that draws the parameters and applies the operations.
The whole batch goes through a few large kernels instead of each image through many small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import conv2d, pad

from evensphere.data.crop import crop_boxes, cut_crop, resize_and_center, resized_crop, unit
from evensphere.data.randaugment import LARGEST, randaugment
from evensphere.data.source import Batch, PixelBatch, Pixels
from evensphere.data.subbatch import update
from evensphere.errors import InputError
from evensphere.ops.draw import uniform

# ---------------------------------------------------------------------------------------------------------------------
# Colour operations: images are float in 0..1, the results too


def adjust_brightness(
    images: Float[Tensor, "batch c h w"], factor: Float[Tensor, " batch"]
) -> Float[Tensor, "batch c h w"]:
    """Pixels times `factor` (>= 0; 1 changes nothing)."""
    return images.mul(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(
    images: Float[Tensor, "batch c h w"], factor: Float[Tensor, " batch"]
) -> Float[Tensor, "batch c h w"]:
    """Away from the image's mean grey by `factor` (>= 0; 1 changes nothing, 0 leaves the mean); 1 or 3 channels."""
    factor = _per_image(factor)
    grey = images if images.shape[1] == 1 else _luma(images)
    mean = grey.mean((1, 2, 3), keepdim=True)
    return images.mul(factor).add_(mean * (1 - factor)).clamp_(0, 1)


def adjust_saturation(
    images: Float[Tensor, "batch 3 h w"], factor: Float[Tensor, " batch"]
) -> Float[Tensor, "batch 3 h w"]:
    """Away from each pixel's grey by `factor` (>= 0; 1 changes nothing, 0 is grayscale)."""
    return torch.lerp(_luma(images), images, _per_image(factor)).clamp_(0, 1)


def adjust_hue(images: Float[Tensor, "batch 3 h w"], shift: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 h w"]:
    """Hue turned by `shift` (-0.5 .. 0.5 of the colour circle; 0 changes nothing), saturation and value kept.

    With the hue counted in sixths from red, HSV -> RGB is a trapezium per channel: low + range * clamp(|hue - 3| - 1)
    for red, low + range * clamp(2 - |hue - 2|) for green and 4 for blue. So neither a table of sectors nor the
    saturation is needed.
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    extent = high - low
    hue = torch.where(high == green, (blue - red).add_(extent, alpha=2), (red - green).add_(extent, alpha=4))
    hue = torch.where(high == red, green - blue, hue)
    hue.div_(extent.clamp(min=torch.finfo(images.dtype).tiny)).add_(6 * shift[:, None, None])  # grey has hue 0
    hue.sub_(hue.div(6).floor_(), alpha=6)
    turned = torch.empty_like(images)
    for channel, (centre, slope, offset) in enumerate([(3, 1, -1), (2, -1, 2), (4, -1, 2)]):
        share = (hue - centre).abs_().mul_(slope).add_(offset).clamp_(0, 1)
        torch.addcmul(low, share, extent, out=turned[:, channel])
    return turned


def grayscale(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
    """Luma in all three channels."""
    return _luma(images).expand_as(images)


def gaussian_blur(
    images: Float[Tensor, "batch c h w"], kernel_size: int, sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch c h w"]:
    """Gaussian of `sigma` pixels (> 0) cut to `kernel_size` (odd) pixels; borders are mirrored, so the kernel's radius
    must be smaller than the image."""
    b, c, h, w = images.shape
    radius = kernel_size // 2
    offset = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.softmax(-0.5 * (offset / sigma[:, None]) ** 2, dim=1).repeat_interleave(c, dim=0)[:, None]
    planes = pad(images, (radius,) * 4, mode="reflect").reshape(1, b * c, h + 2 * radius, w + 2 * radius)
    planes = conv2d(planes, kernel[..., :, None], groups=b * c)
    return conv2d(planes, kernel[..., None, :], groups=b * c).view(b, c, h, w)


def solarize(images: Float[Tensor, "batch c h w"], threshold: Float[Tensor, " batch"]) -> Float[Tensor, "batch c h w"]:
    """Pixels at or above `threshold` (0..1) are inverted."""
    return torch.where(images >= _per_image(threshold), 1 - images, images)


def _per_image(factor: Float[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    return factor[:, None, None, None]


def _luma(images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 1 h w"]:
    """ITU-R 601 weights, to the digits torchvision uses."""
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


# ---------------------------------------------------------------------------------------------------------------------
# The policy

JITTER = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
BLUR_SIGMA = (0.1, 2.0)  # pixels, as in SimCLR
SOLARIZE_THRESHOLD = 0.5  # as in BYOL

# Keywords of `Views` by kind of image; the size follows the data.
VIEWS: dict[str, dict[str, Any]] = {
    "cifar": {},  # the defaults
    "digits": {
        "scale": (0.5, 1.0),
        "flip": 0.0,
        "jitter": (0.0, 0.0, 0.0, 0.0),
        "gray": 0.0,
        "mean": (0.3053,),
        "std": (0.3760,),
    },
    "photos": {
        "scale": (0.08, 1.0),
        "interpolation": "bicubic",
        "blur": 0.5,
        "randaugment_operations": 2,
        "randaugment_magnitude": (0.0, 30.0),
        "randaugment_random": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}
# BYOL's two views (Grill et al., NeurIPS 2020, appendix B); local views are blurred as in DINO
VIEWS["photos-asymmetric"] = VIEWS["photos"] | {
    "jitter": (0.4, 0.4, 0.2, 0.1),
    "blur": (1.0, 0.1, 0.5),
    "solarize": (0.0, 0.2, 0.0),
}

_WEAK = -1  # in the address of a draw: the view that probes are fitted on; training's are counted from 0

# (purpose, count) -> count numbers in [0, 1) for each image of the batch
Draw = Callable[[str, int], Float[Tensor, "batch count"]]


class Views:
    """Random views of images. Every draw is addressed by (seed, epoch, view, image index): who computes a view, and in
    which batch, makes no difference to it.

    size: side of a view in pixels, at least 2.
    scale, ratio: area (shares of the image, in (0, 1]) and aspect ratio (width/height) of the random crop.
    interpolation: "bilinear" or "bicubic".
    flip, gray: probability of each per view.
    blur, solarize: the same, or a list: one for each view, of which the last holds for all views that follow.
    jitter: strengths of brightness, contrast, saturation (factors within 1 +- strength, at least 0) and hue (shift
        within +- strength, at most 0.5), applied in random order with probability `jitter_probability`.
    mean, std: of the channels, for pixels in 0..1. Their length is the number of channels the images must have. Only
        3 channels take saturation, hue and gray, only 1 or 3 contrast.
    randaugment_operations, randaugment_magnitude, randaugment_random: RandAugment, applied last and only for a method
        that asks for stronger views of some images (BCL): how many operations, their magnitude (of 30) at weight 0 and
        at weight 1, and whether the rise is multiplied by a random number (see `randaugment`).
    num_views: full views per image.
    local_views: smaller views per image that come after the full ones, for methods with multi-crop.
    local_size: their side, at least 2 and less than `size`; None takes 3/7 of it (96 of 224, as in SwAV and DINO).
    local_scale: area of their crops (DINO: 0.05 to 0.4, with 0.4 to 1 for the full views).

    The defaults are the paper's CIFAR policy (section 3). The blur's kernel spans a tenth of the view, as in SimCLR.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.1, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
        flip: float = 0.5,
        jitter: Sequence[float] = (0.4, 0.4, 0.4, 0.1),
        jitter_probability: float = 0.8,
        gray: float = 0.2,
        blur: float | Sequence[float] = 0.0,
        solarize: float | Sequence[float] = 0.0,
        mean: Sequence[float] = (0.4914, 0.4822, 0.4465),
        std: Sequence[float] = (0.2023, 0.1994, 0.2010),
        num_views: int = 2,
        randaugment_operations: int = 1,
        randaugment_magnitude: Sequence[float] = (10.0, 30.0),
        randaugment_random: bool = False,
        local_views: int = 0,
        local_size: int | None = None,
        local_scale: Sequence[float] = (0.05, 0.4),
        seed: int = 0,
    ) -> None:
        self.size, self.scale, self.ratio, self.interpolation = size, scale, ratio, interpolation
        self.jitter, self.jitter_probability = jitter, jitter_probability
        self.flip, self.gray, self.blur, self.solarize = flip, gray, blur, solarize
        self.mean, self.std = mean, std
        self.num_views, self.local_views, self.seed = num_views, local_views, seed
        self.randaugment_operations, self.randaugment_magnitude = randaugment_operations, randaugment_magnitude
        self.randaugment_random = randaugment_random
        self.local_size = max(2, round(size * 3 / 7)) if local_size is None else local_size
        self.local_scale = local_scale
        self._check_geometry()
        self._check_colour()

    @property
    def all_views(self) -> range:
        """The numbers of the views, by which their draws are addressed: the full ones, then the local ones."""
        return range(self.num_views + self.local_views)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the full views and, if there are any, of the local ones."""
        return (self.size, self.local_size) if self.local_views else (self.size,)

    def __call__(
        self, batch: Batch, epoch: int, strength: Float[Tensor, " batch"] | None = None
    ) -> tuple[Float32[Tensor, "batch c _ _"], ...]:
        """One normalised tensor per view, in channels_last memory, on the device of the images; local views come last.

        batch.images: whole images of one size, which are cropped here, or one tensor of crops per view, as `crops`
            cuts them. The two give the same views up to the rounding of the crops to uint8.
        epoch: at least 0.
        strength: in [0, 1], how much RandAugment each image gets (see `randaugment`); None and 0 give the same bits.
        """
        if isinstance(batch.images, Tensor):
            self._check_channels([batch.images])
        else:
            self._check_channels(batch.images)
            assert len(batch.images) == len(self.all_views), "the loader must give one tensor of crops per view"
        index = batch.index.cpu()  # drawn on the CPU, so that the device does not change a last bit
        strength = None if strength is None else strength.cpu()
        return tuple(self._view(batch.images, index, epoch, view, strength) for view in self.all_views)

    def plain(self, images: PixelBatch | Sequence[Pixels]) -> Float32[Tensor, "batch c size size"]:
        """What evaluation sees: the central square, normalised. A sequence may hold images of different sizes."""
        if isinstance(images, Tensor):
            self._check_channels([images])
            central = resize_and_center(images, self.size)
        else:
            self._check_channels(images)
            central = torch.stack([resize_and_center(image, self.size) for image in images])
        return self._normalise(unit(central))

    def weak(
        self, images: PixelBatch | Sequence[Pixels], index: Int64[Tensor, " batch"]
    ) -> Float32[Tensor, "batch c size size"]:
        """What the paper's probe is fitted on: one random crop and, with the views' chance, a flip.

        Images that have the views' size are padded with black by an eighth of it and cropped back to it (the authors'
        CIFAR script); others are cropped like ImageNet (8 to 100 % of the area), whatever the views' own scale.
        """
        flip = uniform(self.seed, f"flip/{_WEAK}", 0, index, 1)[:, 0] < self.flip
        if isinstance(images, Tensor) and images.shape[2:] == (self.size, self.size):
            border = max(1, self.size // 8)
            corners = uniform(self.seed, f"crop/{_WEAK}", 0, index, 2).mul(2 * border + 1).long()
            boxes = torch.cat([corners, torch.full_like(corners, self.size)], dim=1)
            return self._normalise(resized_crop(pad(images, [border] * 4), boxes, self.size, "bilinear", flip))
        crops = torch.stack([self._weak_crop(image, int(i)) for image, i in zip(images, index, strict=True)])
        pixels = unit(crops)
        update(pixels, flip, lambda flipped: flipped.flip(3))
        return self._normalise(pixels)

    def _weak_crop(self, image: Pixels, index: int) -> Pixels:
        height, width = image.shape[1:]
        box = crop_boxes(self.seed, 0, _WEAK, torch.tensor([index]), height, width, (0.08, 1.0), self.ratio)[0]
        return cut_crop(image, box, self.size, self.interpolation)

    def crops(self, images: Sequence[Pixels], epoch: int, view: int, index: Int64[Tensor, " batch"]) -> list[Pixels]:
        """The crops of images of any sizes for one view, for workers that decode files; `__call__` does the rest."""
        height, width = torch.tensor([image.shape[1:] for image in images]).unbind(1)
        size, scale = self._geometry(view)
        boxes = crop_boxes(self.seed, epoch, view, index, height, width, scale, self.ratio)
        return [cut_crop(image, box, size, self.interpolation) for image, box in zip(images, boxes, strict=True)]

    def _geometry(self, view: int) -> tuple[int, Sequence[float]]:
        """Side and area of a view."""
        return (self.size, self.scale) if view < self.num_views else (self.local_size, self.local_scale)

    def _view(
        self,
        images: PixelBatch | Sequence[PixelBatch],
        index: Int64[Tensor, " batch"],
        epoch: int,
        view: int,
        strength: Float[Tensor, " batch"] | None,
    ) -> Float32[Tensor, "batch c size size"]:
        def draw(purpose: str, count: int) -> Float[Tensor, "batch count"]:
            return uniform(self.seed, f"{purpose}/{view}", epoch, index, count)

        flip = draw("flip", 1)[:, 0] < self.flip
        if isinstance(images, Tensor):
            height, width = images.shape[2:]
            size, scale = self._geometry(view)
            boxes = crop_boxes(self.seed, epoch, view, index, height, width, scale, self.ratio)
            pixels = resized_crop(images, boxes, size, self.interpolation, flip)
            if self.interpolation == "bicubic":
                pixels.clamp_(0, 1)
        else:
            pixels = unit(images[view])
            update(pixels, flip, lambda crops: crops.flip(3))
        self._recolour(pixels, view, draw)
        if strength is not None:
            randaugment(
                pixels,
                strength,
                draw,
                self.randaugment_operations,
                self.randaugment_magnitude,
                self.randaugment_random,
                fill=self.mean,
            )
        return self._normalise(pixels)

    def _recolour(self, pixels: Float32[Tensor, "batch c size size"], view: int, draw: Draw) -> None:
        """Jitter, gray, blur and solarize, in place."""
        blurred, solarized = (_of_view(chance, view) for chance in (self.blur, self.solarize))
        self._jitter(pixels, draw)
        if self.gray:
            update(pixels, draw("gray", 1)[:, 0] < self.gray, grayscale)
        if blurred:
            chance, strength = draw("blur", 2).unbind(1)
            sigma = BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * strength
            kernel_size = 2 * max(1, pixels.shape[-1] // 20) + 1
            update(pixels, chance < blurred, lambda x, s: gaussian_blur(x, kernel_size, s), sigma)
        if solarized:
            chosen = draw("solarize", 1)[:, 0] < solarized
            update(pixels, chosen, solarize, torch.full(chosen.shape, SOLARIZE_THRESHOLD))

    def _jitter(self, pixels: Float32[Tensor, "batch c size size"], draw: Draw) -> None:
        """Each image meets the four operations in an order of its own, so every position applies each operation to the
        images that have it there."""
        draws = draw("jitter", 9)
        jittered = draws[:, 0] < self.jitter_probability
        neutral, strength = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor(self.jitter, dtype=torch.float32)
        low, high = neutral - strength, neutral + strength
        low[:3].clamp_(min=0)
        parameters = low + (high - low) * draws[:, 1:5]
        order = draws[:, 5:].argsort(dim=1, stable=True)
        for position in range(4):
            for number, operation in enumerate(JITTER):
                if self.jitter[number]:
                    concerned = jittered & (order[:, position] == number)
                    update(pixels, concerned, operation, parameters[:, number])

    def _normalise(self, pixels: Float32[Tensor, "batch c size size"]) -> Float32[Tensor, "batch c size size"]:
        mean, std = (torch.tensor(x, dtype=torch.float32, device=pixels.device) for x in (self.mean, self.std))
        # in place before the copy: arithmetic in channels_last has an inner loop of only C numbers
        return pixels.sub_(mean[:, None, None]).div_(std[:, None, None]).contiguous(memory_format=torch.channels_last)

    def _check_geometry(self) -> None:
        if self.size < 2:
            raise InputError(f"The views' size is {self.size}; give at least 2 pixels.")
        if self.num_views < 1:
            raise InputError(f"The number of views is {self.num_views}; give at least 1.")
        if self.local_views < 0:
            raise InputError(f"The number of local views is {self.local_views}; give at least 0.")
        if self.local_views and not 2 <= self.local_size < self.size:
            raise InputError(
                f"The local views' size is {self.local_size}; give at least 2 pixels and less than the full views' "
                f"{self.size}, by which they are told apart."
            )
        for name in ("scale", "local_scale"):
            scale = getattr(self, name)
            if not (len(scale) == 2 and 0 < scale[0] <= scale[1] <= 1):
                raise InputError(f"The views' {name} is {scale}; give two numbers in (0, 1], the smaller first.")
        if not (len(self.ratio) == 2 and 0 < self.ratio[0] <= self.ratio[1]):
            raise InputError(f"The views' ratio is {self.ratio}; give two positive numbers, the smaller first.")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise InputError(f"The views' interpolation is '{self.interpolation}'; give 'bilinear' or 'bicubic'.")

    def _check_colour(self) -> None:
        for name in ("flip", "jitter_probability", "gray", "blur", "solarize"):
            chances = getattr(self, name)
            chances = chances if isinstance(chances, Sequence) else [chances]
            if not (chances and all(0 <= chance <= 1 for chance in chances)):
                raise InputError(f"The views' {name} is {getattr(self, name)}; give a probability in [0, 1].")
        if not (len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5):
            raise InputError(
                f"The views' jitter is {self.jitter}; give four strengths of at least 0 (brightness, contrast, "
                "saturation, hue), the hue's at most 0.5."
            )
        magnitude = self.randaugment_magnitude
        if not (len(magnitude) == 2 and 0 <= magnitude[0] <= magnitude[1] <= LARGEST):
            raise InputError(
                f"The views' randaugment_magnitude is {magnitude}; give two numbers from 0 to {LARGEST}, the smaller "
                "first."
            )
        if self.randaugment_operations < 1:
            raise InputError(f"The views' randaugment_operations is {self.randaugment_operations}; give at least 1.")
        channels = len(self.mean)
        if not (len(self.std) == channels >= 1 and min(self.std) > 0):
            raise InputError(
                f"The views' mean is {self.mean} and std {self.std}; give one number per channel, std above 0."
            )
        if channels != 3 and (self.jitter[2] or self.jitter[3] or self.gray):
            raise InputError(
                f"Saturation, hue and gray need 3 channels but the views have {channels}; set gray and the last two "
                "strengths of jitter to 0."
            )
        if channels not in (1, 3) and self.jitter[1]:
            raise InputError(
                f"Contrast needs 1 or 3 channels but the views have {channels}; set the second strength of jitter to 0."
            )

    def _check_channels(self, images: Sequence[Tensor]) -> None:
        for channels in {image.shape[-3] for image in images}:
            if channels != len(self.mean):
                raise InputError(
                    f"The number of channels is {channels} in an image but {len(self.mean)} in the views' mean and "
                    "std; give these one number per channel."
                )


def _of_view(chances: float | Sequence[float], view: int) -> float:
    """One number for all views, or a list whose last number holds for the views beyond it."""
    return chances[min(view, len(chances) - 1)] if isinstance(chances, Sequence) else chances
