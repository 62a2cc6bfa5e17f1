"""What is exported: a run's encoder, what is to be known of it, and what it makes of some images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from evensphere import __version__
from evensphere.data.augment import Views
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.embed import batches_of
from evensphere.errors import InputError
from evensphere.recipes.images import images_of, splits_of
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe
from evensphere.rundir import RunDir, Which

IMAGES = 8  # that an export is compared on


@dataclass(frozen=True)
class Subject:
    """encoder: on the CPU, in evaluation mode. which: of the run's two. images: where the pixels are from, in words.
    features: of the pixels by the encoder."""

    run: RunDir
    recipe: Recipe
    which: Which
    encoder: nn.Module
    views: Views
    images: str
    pixels: Float[Tensor, "n c size size"]
    features: Float[Tensor, "n d"]

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def metadata(self) -> dict[str, Any]:
        """What whoever uses the encoder must know."""
        return {
            "made_by": f"evensphere {__version__}",
            "backbone": self.recipe.backbone.name,
            "backbone_options": self.recipe.backbone.options,
            "num_features": self.features.shape[1],
            "channels": self.channels,
            "input_size": self.views.size,
            "mean": list(self.views.mean),
            "std": list(self.views.std),
            "interpolation": "bilinear",
            "preprocessing": (
                "resize the short side to input_size (bilinear, antialiased), take the central square, scale pixels to "
                "0..1, subtract mean, divide by std"
            ),
            "recipe": self.recipe.name,
            "arm": self.recipe.arm,
            "method": self.recipe.method.name,
            "seed": self.recipe.seed,
            "encoder": self.which,
        }

    @property
    def header(self) -> dict[str, str]:
        """The metadata as one entry: safetensors writes several in an order of its own, another one every time."""
        return {"evensphere": json.dumps(self.metadata)}


def subject_of(run: str | Path, which: Which = "last") -> Subject:
    """A finished run's encoder. The images are the first readable ones of the run's, or noise where they are gone."""
    folder = RunDir.existing(run)
    recipe = Recipe.from_json(folder.read_recipe())
    channels = recipe.resolved.get("channels")
    if not isinstance(channels, int):
        raise InputError(f"{folder.recipe_file} does not say how many channels the images have; train the run again.")
    encoder = build_encoder(recipe, channels)
    load_encoder(folder, encoder, which)
    views: Views = build("views", recipe.views, seed=recipe.seed)
    pixels, images = _pixels(folder, recipe, views, channels)
    encoder.eval()
    with torch.no_grad():
        features = encoder(pixels)
    return Subject(folder, recipe, which, encoder, views, images, pixels, features)


def _pixels(run: RunDir, recipe: Recipe, views: Views, channels: int) -> tuple[Float[Tensor, "n c size size"], str]:
    try:
        source = images_of(run, splits_of(recipe).pretrain)
        _, _, some = next(batches_of(source, IMAGES))
    except (InputError, OSError, StopIteration):
        noise = torch.randn(IMAGES, channels, views.size, views.size, generator=torch.Generator().manual_seed(0))
        return noise, f"{IMAGES} images of noise (the run's own are gone)"
    pixels = views.plain(some).contiguous()
    return pixels, f"{len(pixels)} images of {Path(source.name).name}"
