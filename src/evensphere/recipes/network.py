"""From a recipe to its networks, as they begin and as training left them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import Source
from evensphere.engine.checkpoint import read_checkpoint
from evensphere.errors import InputError
from evensphere.gh.harmonizer import anchor_scores
from evensphere.methods.base import Method
from evensphere.ops.draw import seed_for
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe
from evensphere.rundir import RunDir


def build_encoder(recipe: Recipe, in_channels: int) -> nn.Module:
    """The encoder with the initial weights of the recipe's seed, made for the sizes of its views."""
    views: Views = build("views", recipe.views, seed=recipe.seed)
    with _initial_weights(recipe.seed):
        encoder: nn.Module = build("backbone", recipe.backbone, in_channels=in_channels, image_sizes=views.sizes)
    return encoder


def build_method(
    recipe: Recipe,
    in_channels: int,
    num_samples: int,
    begin: Callable[[nn.Module], None] | None = None,
    **given: Any,
) -> Method:
    """The method around that encoder, initialised after it. begin: changes the encoder's weights before the method
    copies it. given: what else the program adds."""
    views: Views = build("views", recipe.views, seed=recipe.seed)
    with _initial_weights(recipe.seed):
        encoder: nn.Module = build("backbone", recipe.backbone, in_channels=in_channels, image_sizes=views.sizes)
        if begin is not None:
            begin(encoder)
        method: Method = build("method", recipe.method, encoder=encoder, num_samples=num_samples, **given)
    return method


@contextmanager
def _initial_weights(seed: int) -> Iterator[None]:
    """torch's generator seeded for the initial weights, and afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "init"))
        yield


def trained_method(run: RunDir) -> Method:
    """The method of a finished run as it ended, on the CPU."""
    recipe = Recipe.from_json(run.read_recipe())
    steps = run.checkpoint_steps()
    if not run.encoder_file.exists() or not steps:
        raise InputError(f"{run.path} has not been trained to its end, or its checkpoints were deleted.")
    method = build_method(recipe, recipe.resolved["channels"], recipe.resolved["num_images"])
    state = read_checkpoint(run, steps[-1])["model"]
    own = {name.removeprefix("method."): value for name, value in state.items() if name.startswith("method.")}
    method.load_state_dict(own)
    return method


def teaching(recipe: Recipe, run: RunDir, source: Source) -> dict[str, Any]:
    """What a method that learns from finished runs is given beyond its encoder; nothing for other recipes.

    The first teacher knows all images, the others one part each: the images of their own runs.
    """
    if not recipe.teachers:
        return {}
    runs = [RunDir.existing(os.path.normpath(run.path / teacher)) for teacher in recipe.teachers]
    return {"teachers": [_embedder(teacher) for teacher in runs], "owner": _owners(source, runs[1:])}


def projector_of(method: Method) -> nn.Module:
    """What makes embeddings of features. Raises InputError for a method that has no such thing."""
    projector = getattr(method, "projector", None)
    if not isinstance(projector, nn.Module):
        raise InputError(
            f"{type(method).__name__} has no projector, whose embeddings could be distilled; choose another method."
        )
    return projector


@torch.no_grad()
def nearest_anchors(
    features: Float[Tensor, "n d"], projector: nn.Module, anchors: Float[Tensor, "k e"]
) -> Int64[Tensor, " n"]:
    """The anchor nearest to each image's projection, part by part. projector: in evaluation mode."""
    parts = [anchor_scores((projector(part),), anchors)[0].argmax(1) for part in features.split(4096)]
    return torch.cat(parts)


def _embedder(run: RunDir) -> nn.Module:
    """The network from images to embeddings that a run has trained."""
    method = trained_method(run)
    return nn.Sequential(method.encoder, projector_of(method))


def _owners(source: Source, runs: list[RunDir]) -> Int64[Tensor, " n"]:
    """For each image, which of the runs was trained on it."""
    owner = {location: k for k, run in enumerate(runs) for location in run.read_images()}
    locations = [source.location(i) for i in range(len(source))]
    orphans = [location for location in locations if location not in owner]
    if orphans:
        raise InputError(f"{len(orphans)} image(s) belong to no expert, the first being {orphans[0]}.")
    return torch.tensor([owner[location] for location in locations])
