"""Colour operations against torchvision's functions, one image at a time, and their matrix form against them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from evensphere.data.colour import (
    ColourMatrix,
    adjust_hue,
    blend,
    gaussian_blur,
    grayscale,
    recolour,
    solarize,
)

KINDS = ["noise", "levels", "black", "white", "grey", "grey noise", "red", "saturated", "one row", "one column"]


def images(kind: str, count: int = 24, channels: int = 3) -> Tensor:
    """Float images in 0..1: random and degenerate ones."""
    noise = torch.rand(count, channels, 11, 14, generator=torch.Generator().manual_seed(0))
    only_red = torch.tensor([1.0, 0.0, 0.0])[:channels, None, None]
    return {
        "noise": noise,
        "levels": (noise * 4).round() / 4,  # few levels: ties between channels, exact 0 and 1
        "black": torch.zeros_like(noise),
        "white": torch.ones_like(noise),
        "grey": torch.full_like(noise, 0.5),
        "grey noise": noise[:, :1].expand_as(noise),
        "red": noise[:, :1] * only_red,
        "saturated": noise.round(),
        "one row": noise[:, :, :1],
        "one column": noise[:, :, :, :1],
    }[kind]


def assert_each_equals(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], pixels: Tensor, parameter: Tensor, atol: float = 1e-5
) -> None:
    before = pixels.clone()
    result = ours(pixels, parameter)
    assert torch.equal(pixels, before), "the operation changed its input"
    expected = torch.stack([theirs(x, float(p)) for x, p in zip(pixels, parameter, strict=True)])
    torch.testing.assert_close(result, expected, rtol=0, atol=atol)


# --- colour operations


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return blend(pixels, factor)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    return blend(pixels, factor, (1 - factor, torch.zeros_like(factor)))


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return blend(pixels, factor, (torch.zeros_like(factor), 1 - factor))


FACTORS = torch.cat([torch.tensor([0.0, 1.0, 2.0]), torch.linspace(0.1, 3, 21)])
SHIFTS = torch.cat([torch.tensor([-0.5, 0.0, 0.5]), torch.linspace(-0.49, 0.49, 21)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(brightness, tv.adjust_brightness), (contrast, tv.adjust_contrast), (saturation, tv.adjust_saturation)],
)
def test_factors_equal_torchvision(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], kind: str) -> None:
    assert_each_equals(ours, theirs, images(kind), FACTORS)


@pytest.mark.parametrize("kind", KINDS)
def test_hue_equals_torchvision(kind: str) -> None:
    assert_each_equals(adjust_hue, tv.adjust_hue, images(kind), SHIFTS)


@pytest.mark.parametrize("amount", [1e-6, 3e-4])
def test_hue_equals_torchvision_on_nearly_grey_images(amount: float) -> None:
    nearly_grey = (1 - amount) * images("grey noise") + amount * images("noise")
    assert_each_equals(adjust_hue, tv.adjust_hue, nearly_grey, SHIFTS)


def test_hue_turns_red_to_green_to_blue() -> None:
    red = torch.tensor([1.0, 0.25, 0.25])[None, :, None, None]
    green = adjust_hue(red, torch.tensor([1 / 3]))
    torch.testing.assert_close(green.flatten(), torch.tensor([0.25, 1.0, 0.25]))
    torch.testing.assert_close(adjust_hue(green, torch.tensor([1 / 3])).flatten(), torch.tensor([0.25, 0.25, 1.0]))


@pytest.mark.parametrize("kind", ["noise", "levels", "black", "white", "one row"])
@pytest.mark.parametrize(("ours", "theirs"), [(brightness, tv.adjust_brightness), (contrast, tv.adjust_contrast)])
def test_brightness_and_contrast_of_one_channel(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], kind: str
) -> None:
    assert_each_equals(ours, theirs, images(kind, channels=1), FACTORS)


@pytest.mark.parametrize("kind", KINDS)
def test_grayscale_equals_torchvision(kind: str) -> None:
    torch.testing.assert_close(grayscale(images(kind)), tv.rgb_to_grayscale(images(kind), 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 21])
@pytest.mark.parametrize("kind", ["noise", "black", "white"])
def test_blur_equals_torchvision(kind: str, kernel_size: int, channels: int) -> None:
    def theirs(image: Tensor, sigma: float) -> Tensor:
        blurred: Tensor = tv.gaussian_blur(image, kernel_size, sigma)
        return blurred

    sigma = torch.linspace(0.05, 4, 24)
    assert_each_equals(lambda x, s: gaussian_blur(x, kernel_size, s), theirs, images(kind, channels=channels), sigma)


@pytest.mark.parametrize("kind", KINDS)
def test_solarize_equals_torchvision(kind: str) -> None:
    threshold = torch.linspace(0, 1, 24)
    assert_each_equals(solarize, tv.solarize, images(kind), threshold, atol=0)


@pytest.mark.parametrize(
    "operation",
    [brightness, contrast, saturation, adjust_hue, solarize, lambda x, s: gaussian_blur(x, 3, s)],
)
def test_memory_format_makes_no_difference(operation: Callable[..., Tensor]) -> None:
    parameter = torch.linspace(0.1, 0.5, 24)
    scattered = images("noise").contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(operation(scattered, parameter), operation(images("noise"), parameter))


@pytest.mark.parametrize("kind", KINDS)
def test_one_blend_holds_all_three_operations(kind: str) -> None:
    """Images that meet different operations in one call get what each operation alone makes of them."""
    pixels, which = images(kind), torch.arange(24) % 4
    none = torch.zeros(24)
    to_mean, to_grey = (torch.where(which == number, 1 - FACTORS, none) for number in (1, 2))
    mixed = blend(pixels, torch.where(which == 3, 1.0, FACTORS), (to_mean, to_grey))
    alone = torch.stack([brightness(pixels, FACTORS), contrast(pixels, FACTORS), saturation(pixels, FACTORS), pixels])
    assert torch.equal(mixed, alone[which, torch.arange(24)])


# --- several operations as one matrix


def random_matrix(seed: int, count: int = 24) -> ColourMatrix:
    generator = torch.Generator().manual_seed(seed)
    factor, to_mean, to_grey, shift = torch.rand(4, count, generator=generator)
    return ColourMatrix.identity(count).blend(factor, to_mean, to_grey).turn(shift - 0.5)


def test_the_matrix_of_blends_is_the_blends_where_nothing_is_cut() -> None:
    """Brightness, contrast and saturation of muted colours, which stay inside 0..1, in two orders."""
    pixels = 0.4 + 0.2 * images("noise")
    factors = torch.linspace(0.7, 1.3, 24)
    none = torch.zeros(24)
    greys = [(none, none), (1 - factors, none), (none, 1 - factors)]
    for order in ([0, 1, 2], [2, 0, 1]):
        colour, expected = ColourMatrix.identity(24), pixels
        for number in order:
            colour = colour.blend(factors, *greys[number])
            expected = blend(expected, factors, greys[number])
        torch.testing.assert_close(recolour(pixels, colour), expected, rtol=0, atol=1e-6)


def test_matrices_follow_each_other() -> None:
    """Applying two matrices one after the other is applying their product, the second to the mean of what the first
    made."""
    pixels, first, second = 0.45 + 0.1 * images("noise"), random_matrix(0), random_matrix(1)
    after = first.then(second.matrix, second.of_mean)
    mean = pixels.mean((2, 3))[..., None]

    def apply(colour: ColourMatrix, colours: Tensor, mean: Tensor) -> Tensor:
        return colour.matrix @ colours + colour.of_mean @ mean

    step_by_step = apply(second, apply(first, pixels.flatten(2), mean), apply(first, mean, mean))
    torch.testing.assert_close(apply(after, pixels.flatten(2), mean), step_by_step, rtol=0, atol=1e-5)
    expected = step_by_step.view_as(pixels).clamp(0, 1)
    torch.testing.assert_close(recolour(pixels, after), expected, rtol=0, atol=1e-5)


def test_a_turn_keeps_grey_and_takes_red_to_green_to_blue() -> None:
    third = ColourMatrix.identity(1).turn(torch.tensor([1 / 3])).matrix[0]
    red, green, blue = torch.eye(3)
    torch.testing.assert_close(third @ red, green, atol=1e-6, rtol=0)
    torch.testing.assert_close(third @ green, blue, atol=1e-6, rtol=0)
    any_turn = random_matrix(3).turn(SHIFTS).matrix
    back = ColourMatrix(any_turn, torch.zeros_like(any_turn)).turn(-SHIFTS).matrix
    torch.testing.assert_close(back, random_matrix(3).matrix, atol=1e-6, rtol=0)
    turns = ColourMatrix.identity(24).turn(SHIFTS).matrix
    torch.testing.assert_close(turns @ torch.ones(3), torch.ones(24, 3), atol=1e-6, rtol=0)


def test_an_image_alone_has_the_contrast_that_it_has_in_a_batch() -> None:
    """To the last bit, with threads that could share its sum."""
    pixels = torch.rand(5, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    factor = torch.linspace(0.6, 1.4, 5)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        together = blend(pixels, factor, (1 - factor, torch.zeros(5)))
        for i in range(5):
            alone = blend(pixels[i : i + 1], factor[i : i + 1], (1 - factor[i : i + 1], torch.zeros(1)))
            assert torch.equal(alone[0], together[i])
    finally:
        torch.set_num_threads(before)
