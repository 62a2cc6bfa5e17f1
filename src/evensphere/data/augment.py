"""Views of images: random crop, flip and colour, for a whole batch at once and on any device.

`Views` is the policy: it draws the parameters of each image (`_Drawn`) and applies the operations of data/crop.py,
data/colour.py and data/randaugment.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor
from torch.nn.functional import pad

from evensphere.data.colour import (
    CONTRAST,
    HUE,
    NOTHING,
    SATURATION,
    ColourMatrix,
    adjust_hue,
    blend,
    gaussian_blur,
    grayscale,
    recolour,
    solarize,
)
from evensphere.data.crop import (
    crop_boxes,
    crop_taps,
    cut_crop,
    cut_with,
    resize_and_center,
    resized_crop,
    unit,
    whole_taps,
)
from evensphere.data.randaugment import LARGEST, randaugment
from evensphere.data.separable import Taps
from evensphere.data.source import Batch, PixelBatch, Pixels
from evensphere.data.subbatch import update
from evensphere.errors import InputError
from evensphere.ops.draw import uniform
from evensphere.ops.transfer import send
from evensphere.values import check_whole

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

_LARGEST_SIZE, _MOST_VIEWS, _MOST_OPERATIONS = 2**15, 100, 100

_WEAK = -1  # in the address of a draw: the view that probes are fitted on; training's are counted from 0

# (purpose, count) -> count numbers in [0, 1) for each image of the batch
Draw = Callable[[str, int], Float[Tensor, "batch count"]]


class _Jitter(NamedTuple):
    """The four places of each image's jitter.

    operations: which of the operations an image meets at each place. factor, to_mean, to_grey: of it where it is a
        blend (see `colour.blend`), else (1, 0, 0). shift: of the hue, else 0.
    """

    operations: Int64[Tensor, "batch 4"]
    factor: Float32[Tensor, "batch 4"]
    to_mean: Float32[Tensor, "batch 4"]
    to_grey: Float32[Tensor, "batch 4"]
    shift: Float32[Tensor, "batch 4"]


class _PerImage(NamedTuple):
    """All that differs from image to image in one view, but for the crop. On the CPU, where asking how many images an
    operation concerns makes no GPU wait.

    number: of the image in the source, which is the address of its draws. strength: of RandAugment.
    """

    number: Int64[Tensor, " batch"]
    strength: Float32[Tensor, " batch"]
    jitter: _Jitter
    flip: Bool[Tensor, " batch"]
    gray: Bool[Tensor, " batch"]
    blurred: Bool[Tensor, " batch"]
    sigma: Float32[Tensor, " batch"]
    solarized: Bool[Tensor, " batch"]


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
    policy: "exact" does the operations of jitter and gray one after the other, equal to torchvision's; "fast" does them
        as one matrix for each image: hue is a rotation about the grey axis, and colours are cut to their range once, at
        the end (`policy_errors` tells how far apart the two are). It needs 3 channels, and is for GPUs: a CPU has a
        kernel of its own for "exact" (data/kernels.py) and is slower with "fast".
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
        policy: str = "exact",
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
        self.policy = policy
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
        if isinstance(batch.images, Tensor):
            whole = batch.images
            return tuple(self._view(whole, index, epoch, view, strength, cropped=False) for view in self.all_views)
        return tuple(
            self._view(crops, index, epoch, view, strength, cropped=True)
            for view, crops in zip(self.all_views, batch.images, strict=True)
        )

    def with_policy(self, policy: str) -> Views:
        """The same views but for `policy`."""
        other = copy.copy(self)
        other.policy = policy
        other._check_colour()
        return other

    def plain(self, images: PixelBatch | Sequence[Pixels]) -> Float32[Tensor, "batch c size size"]:
        """What evaluation sees: the central square, normalised. A sequence may hold images of different sizes."""
        if isinstance(images, Tensor):
            self._check_channels([images])
            central = resize_and_center(images, self.size)
        else:
            self._check_channels(images)
            central = torch.stack([resize_and_center(image, self.size) for image in images])
        return self._normalise(unit(central)).contiguous(memory_format=torch.channels_last)

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
            pixels = resized_crop(pad(images, [border] * 4), boxes, self.size, "bilinear", flip)
            return self._normalise(pixels).contiguous(memory_format=torch.channels_last)
        crops = torch.stack([self._weak_crop(image, int(i)) for image, i in zip(images, index, strict=True)])
        pixels = update(unit(crops), flip, _mirrored)
        return self._normalise(pixels).contiguous(memory_format=torch.channels_last)

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
        images: PixelBatch,
        index: Int64[Tensor, " batch"],
        epoch: int,
        view: int,
        strength: Float[Tensor, " batch"] | None,
        cropped: bool,
    ) -> Float32[Tensor, "batch c size size"]:
        """One view of each image. cropped: whether the images are its crops already."""
        given = self._draw(index, epoch, view, strength)
        taps = None if cropped else self._taps(images, given, epoch, view)
        if images.device.type == "cpu" and self.policy == "exact" and len(self.mean) == 3:
            done = not (given.blurred | given.solarized | (given.strength > 0)).any()
            pixels = self._cut_and_coloured(images, taps, given, normalise=done)
            if done:
                return pixels
        else:
            pixels = self._coloured(self._cut(images, taps, given), given)
        pixels = self._normalise(self._finish(pixels.contiguous(), given, epoch, view))
        return pixels.contiguous(memory_format=torch.channels_last)

    def _draw(
        self, index: Int64[Tensor, " batch"], epoch: int, view: int, strength: Float[Tensor, " batch"] | None
    ) -> _PerImage:
        draw = self._draws(index, epoch, view)
        never = torch.zeros(len(index), 1)
        blurred, solarized = _of_view(self.blur, view), _of_view(self.solarize, view)
        blur_draws = draw("blur", 2) if blurred else never.expand(-1, 2)
        return _PerImage(
            number=index,
            strength=torch.zeros(len(index)) if strength is None else strength.float(),
            jitter=self._draw_jitter(draw("jitter", 9)),
            flip=draw("flip", 1)[:, 0] < self.flip,
            gray=draw("gray", 1)[:, 0] < self.gray,
            blurred=blur_draws[:, 0] < blurred,
            sigma=BLUR_SIGMA[0] + (BLUR_SIGMA[1] - BLUR_SIGMA[0]) * blur_draws[:, 1],
            solarized=(draw("solarize", 1) if solarized else never)[:, 0] < solarized,
        )

    def _draws(self, index: Int64[Tensor, " batch"], epoch: int, view: int) -> Draw:
        return lambda purpose, count: uniform(self.seed, f"{purpose}/{view}", epoch, index, count)

    def _draw_jitter(self, draws: Float[Tensor, "batch 9"]) -> _Jitter:
        """An image that is not jittered meets nothing four times."""
        neutral, strength = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor(self.jitter, dtype=torch.float32)
        low, high = neutral - strength, neutral + strength
        low[:3].clamp_(min=0)
        order = draws[:, 5:].argsort(dim=1, stable=True)
        amount = (low + (high - low) * draws[:, 1:5]).gather(1, order)
        met = (draws[:, :1] < self.jitter_probability) & (strength > 0)[order]
        operations = torch.where(met, order, NOTHING)
        factor = torch.where(operations <= SATURATION, amount, 1.0)
        to_mean, to_grey = (torch.where(operations == kind, 1 - factor, 0.0) for kind in (CONTRAST, SATURATION))
        return _Jitter(operations, factor, to_mean, to_grey, torch.where(operations == HUE, amount, 0.0))

    def _taps(self, images: PixelBatch, given: _PerImage, epoch: int, view: int) -> tuple[Taps, Taps]:
        """Of which rows and columns of its image each pixel of a view is made."""
        size, scale = self._geometry(view)
        boxes = crop_boxes(self.seed, epoch, view, given.number, images.shape[2], images.shape[3], scale, self.ratio)
        return crop_taps(boxes, size, self.interpolation, given.flip, images.device)

    def _cut_and_coloured(
        self, images: PixelBatch, taps: tuple[Taps, Taps] | None, given: _PerImage, normalise: bool
    ) -> Float32[Tensor, "batch 3 size size"]:
        """What `_cut` and `_coloured` give, on a CPU in a fraction of the time; normalised if wanted."""
        from evensphere.data.kernels import cut_and_colour  # numba takes a while to start

        mean, scale = _normalisation(self.mean, self.std) if normalise else (torch.zeros(3), torch.ones(3))
        return cut_and_colour(
            images,
            taps or whole_taps(images.shape[2], given.flip),
            given.jitter.operations,
            torch.where(given.jitter.operations == HUE, given.jitter.shift, given.jitter.factor),
            given.gray,
            mean,
            scale,
            bounded=taps is not None and self.interpolation == "bicubic",
        )

    def _cut(
        self, images: PixelBatch, taps: tuple[Taps, Taps] | None, given: _PerImage
    ) -> Float32[Tensor, "batch c size size"]:
        """Pixels of the crops, in 0..1."""
        if taps is None:
            return update(unit(images), given.flip, _mirrored)
        pixels = cut_with(images, *taps)
        return pixels.clamp_(0, 1) if self.interpolation == "bicubic" else pixels

    def _coloured(
        self, pixels: Float32[Tensor, "batch c size size"], given: _PerImage
    ) -> Float32[Tensor, "batch c size size"]:
        """Jitter and gray; `pixels` is used up."""
        if self.policy == "fast":
            return recolour(pixels, _colour_matrix(given.jitter, given.gray).to(pixels.device))
        return update(_jittered(pixels, given.jitter), given.gray, grayscale)

    def _finish(
        self, pixels: Float32[Tensor, "batch c size size"], given: _PerImage, epoch: int, view: int
    ) -> Float32[Tensor, "batch c size size"]:
        """Blur, solarize and RandAugment; `pixels` is used up."""
        kernel_size = 2 * max(1, pixels.shape[-1] // 20) + 1
        pixels = update(pixels, given.blurred, lambda x, sigma: gaussian_blur(x, kernel_size, sigma), given.sigma)
        threshold = torch.full_like(given.sigma, SOLARIZE_THRESHOLD)
        pixels = update(pixels, given.solarized, solarize, threshold)
        if given.strength.any():
            pixels = randaugment(
                pixels,
                given.strength,
                self._draws(given.number, epoch, view),
                self.randaugment_operations,
                self.randaugment_magnitude,
                self.randaugment_random,
                fill=self.mean,
            )
        return pixels

    def _normalise(self, pixels: Float32[Tensor, "batch c h w"]) -> Float32[Tensor, "batch c h w"]:
        """In place: arithmetic in channels_last would have an inner loop of only C numbers."""
        mean, scale = send(_normalisation(self.mean, self.std), pixels.device)[..., None, None]
        return pixels.sub_(mean).mul_(scale)

    def _check_geometry(self) -> None:
        check_whole("views.size", self.size, 2, _LARGEST_SIZE)
        check_whole("views.num_views", self.num_views, 1, _MOST_VIEWS)
        check_whole("views.local_views", self.local_views, 0, _MOST_VIEWS)
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
        check_whole("views.randaugment_operations", self.randaugment_operations, 1, _MOST_OPERATIONS)
        if self.policy not in ("exact", "fast"):
            raise InputError(f"The views' policy is '{self.policy}'; give 'exact' or 'fast'.")
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
        if channels != 3 and self.policy == "fast":
            raise InputError(
                f"The views' policy is 'fast' but it needs 3 channels and they have {channels}; give 'exact'."
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


def _normalisation(mean: Sequence[float], std: Sequence[float]) -> Float32[Tensor, "2 c"]:
    """What is taken from the channels, and by what they are multiplied then."""
    return torch.tensor([mean, [1 / one for one in std]])


def _jittered(pixels: Float32[Tensor, "batch c h w"], jitter: _Jitter) -> Float32[Tensor, "batch c h w"]:
    """Each image through its operations in its order: at each place those that are blends together, then the hue."""
    factor, *greys = send(torch.stack(jitter[1:4]), pixels.device).unbind()
    for place, operation in enumerate(jitter.operations.unbind(1)):
        if (operation <= SATURATION).any():
            grey = ((operation == CONTRAST) | (operation == SATURATION)).any()
            to_mean, to_grey = (pull[:, place] for pull in greys)
            pixels = blend(pixels, factor[:, place], (to_mean, to_grey) if grey else None)
        pixels = update(pixels, operation == HUE, adjust_hue, jitter.shift[:, place])
    return pixels


def _colour_matrix(jitter: _Jitter, gray: Bool[Tensor, " batch"]) -> ColourMatrix:
    """All operations of the jitter, then gray."""
    colour = ColourMatrix.identity(len(gray))
    for place in range(4):
        _, factor, to_mean, to_grey, shift = (field[:, place] for field in jitter)
        colour = colour.blend(factor, to_mean, to_grey).turn(shift)
    chosen = gray.float()
    return colour.blend(1 - chosen, torch.zeros_like(chosen), chosen)


def _mirrored(images: Float32[Tensor, "batch c h w"]) -> Float32[Tensor, "batch c h w"]:
    return images.flip(3)


def _of_view(chances: float | Sequence[float], view: int) -> float:
    """One number for all views, or a list whose last number holds for the views beyond it."""
    return chances[min(view, len(chances) - 1)] if isinstance(chances, Sequence) else chances


@torch.no_grad()
def policy_errors(views: Views, images: PixelBatch) -> dict[str, float]:
    """How far the fast policy's pixels are from the exact one's, over all views of these images (in 0..1, not
    normalised): the mean and the largest absolute difference, and the share of numbers that differ by more than 8 of
    255 levels, which an eye begins to see. What counts is accuracy, and only runs can tell."""
    batch = Batch(images, torch.arange(len(images)))
    exact, fast = (views.with_policy(policy)(batch, 0) for policy in ("exact", "fast"))
    std = torch.tensor(views.std, device=images.device)[:, None, None]
    errors = torch.cat([((a - b) * std).abs().flatten() for a, b in zip(exact, fast, strict=True)])
    return {
        "mean": float(errors.mean()),
        "max": float(errors.max()),
        "share_above_8_levels": float((errors > 8 / 255).float().mean()),
    }
