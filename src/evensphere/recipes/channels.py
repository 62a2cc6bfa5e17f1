"""Views that suit the number of channels of the images."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evensphere.data.augment import Views
from evensphere.data.crop import unit
from evensphere.data.source import Source, UnreadableImage
from evensphere.errors import InputError
from evensphere.ops.draw import permutation
from evensphere.recipes.part import check
from evensphere.recipes.recipe import Recipe, because

_LUMINANCE = (0.299, 0.587, 0.114)
_MEASURED = 64  # images whose pixels are looked at


def with_channels(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with views for as many channels as the images have, where its own are for another number.

    mean and std become, for grey images, the luminance of the RGB ones; for RGB images, the grey one three times; for
    any other number they are measured on up to 64 images. Saturation, hue and gray are switched off unless there are 3
    channels, contrast unless there are 1 or 3. (RandAugment takes any number of channels.)

    What the recipe itself says of the views stays. resolved["adapted"] names what was changed.
    Raises InputError where the recipe gives a mean or std for another number of channels.
    """
    channels = source.channels
    said = recipe.views.options
    now = {name: one.default for name, one in inspect.signature(Views).parameters.items()} | check(
        "views", recipe.views
    )
    if len(now["mean"]) == len(now["std"]) == channels:
        return recipe
    for name in ("mean", "std"):
        if name in said and len(said[name]) != channels:
            raise InputError(
                f"views.{name} = {list(said[name])} was given, and the images of {source.name} have {channels} "
                f"channel(s); give one number for each, or leave it out."
            )
    suited = _statistics(now, source) | (_colour(now["jitter"], channels) if channels != 3 else {})
    adapted = {name: value for name, value in suited.items() if name not in said}
    resolved = recipe.resolved | {"adapted": [f"views.options.{name}" for name in adapted]}
    recipe = replace(recipe, views=recipe.views.replace(**adapted), resolved=resolved)
    for name in adapted:
        recipe = because(recipe, f"views.{name}", f"the images have {channels} channel(s)")
    return recipe


def _colour(jitter: Sequence[float], channels: int) -> dict[str, Any]:
    """The colour operations that images of other than 3 channels can take."""
    return {"jitter": [jitter[0], jitter[1] if channels == 1 else 0.0, 0.0, 0.0], "gray": 0.0}


def _statistics(views: dict[str, Any], source: Source) -> dict[str, Any]:
    mean, std = views["mean"], views["std"]
    if source.channels == 1 and len(mean) == len(std) == 3:
        return {name: [_rounded(float(np.dot(_LUMINANCE, views[name])))] for name in ("mean", "std")}
    if source.channels == 3 and len(mean) == len(std) == 1:
        return {"mean": [mean[0]] * 3, "std": [std[0]] * 3}
    return _measure(source)


def _measure(source: Source) -> dict[str, Any]:
    """Mean and standard deviation of each channel over all pixels of some images, the same ones every time."""
    count, total, squares = 0, torch.zeros(source.channels).double(), torch.zeros(source.channels).double()
    for i in permutation(0, "channel statistics", 0, len(source))[:_MEASURED].tolist():
        try:
            pixels = unit(source.read(i)).double().flatten(1)
        except UnreadableImage:
            continue
        count += pixels.shape[1]
        total += pixels.sum(1)
        squares += pixels.square().sum(1)
    if not count:
        raise InputError(f"No image of {source.name} can be read; are the files where they are said to be?")
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    smallest = 1 / 255  # for a channel that is the same everywhere
    return {
        "mean": [_rounded(value) for value in mean.tolist()],
        "std": [_rounded(max(value, smallest)) for value in std.tolist()],
    }


def _rounded(value: float) -> float:
    return round(value, 4)
