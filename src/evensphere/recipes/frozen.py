"""Images and a frozen encoder to look at them with: those of a run, or anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric
from torch import nn

from evensphere.data.augment import Views
from evensphere.data.source import Source, Splits
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.embed import timm_encoder, timm_views
from evensphere.errors import InputError
from evensphere.nn.statistics import ImageStatistics
from evensphere.recipes.bursts import Groups, groups_of
from evensphere.recipes.channels import with_channels
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, collection, get_recipe, with_data, with_view_size
from evensphere.recipes.run import images_of, splits_of
from evensphere.rundir import RunDir


class Frozen(NamedTuple):
    """source: the images. encoder: on the device, to be used with `embed`. views: as it wants its images.
    made_by: the encoder in words. groups: of the images, which count once each, where a run or the source knows them.
    """

    source: Source
    encoder: nn.Module
    views: Views
    made_by: str
    groups: Groups | None


def frozen(
    target: str | Path, data: Sequence[str] = (), backbone: str | None = None, weights: str | Path | None = None
) -> Frozen:
    """The images of `target` and an encoder for them.

    target: a run folder, or a collection of images (a path of any kind, or a data set's name).
    data: other images for the run's encoder, or where the data set of that name lies.
    backbone, weights: for a collection, a timm model's name and a file of its weights. Without them there is no
        network, and images are told apart by simple statistics.
    Raises InputError where something is missing or does not fit.
    """
    is_run = RunDir(target).recipe_file.is_file()
    if is_run and (backbone or weights):
        raise InputError(f"{target} is a run, which has an encoder of its own; leave out --backbone and --weights.")
    if (backbone is None) != (weights is None):
        raise InputError("A backbone and its weights go together; give both --backbone NAME and --weights FILE.")
    found = _of_run(RunDir(target), data) if is_run else _of_images(str(target), data, backbone, weights)
    return found._replace(encoder=found.encoder.to(Fabric(accelerator="auto", devices=1).device))


def _of_run(run: RunDir, data: Sequence[str]) -> Frozen:
    recipe = Recipe.from_json(run.read_recipe())
    if data:
        how = {name: recipe.resolved[name] for name in ("channels", "bits") if name in recipe.resolved}
        others: Splits = build("data", collection(*data), **how)
        return by_encoder_of(run, others.pretrain, others.pretrain.groups())
    source = images_of(run, splits_of(recipe).pretrain)
    return by_encoder_of(run, source, groups_of(run) if run.images_file.exists() else source.groups())


def by_encoder_of(run: RunDir, source: Source, groups: Groups | None) -> Frozen:
    """Images with the encoder of a finished run, on the CPU. Raises InputError if it does not take them."""
    recipe = Recipe.from_json(run.read_recipe())
    channels = recipe.resolved["channels"]
    if source.channels != channels:
        raise InputError(
            f"The images of {source.name} have {source.channels} channel(s), and {run.path} was trained on {channels}; "
            "give images like those it was trained on."
        )
    encoder = build_encoder(recipe, channels)
    load_encoder(run, encoder)
    return Frozen(source, encoder, build("views", recipe.views, seed=recipe.seed), f"the encoder of {run.path}", groups)


def _of_images(target: str, data: Sequence[str], backbone: str | None, weights: str | Path | None) -> Frozen:
    recipe = with_data(get_recipe("folder"), target)
    recipe = with_data(recipe, *data) if data else recipe
    splits: Splits = build("data", recipe.data)
    source = splits.pretrain
    if backbone is None or weights is None:
        recipe = with_channels(with_view_size(recipe, source), source)
        views: Views = build("views", recipe.views, seed=recipe.seed)
        return Frozen(source, ImageStatistics(), views, "simple image statistics", source.groups())
    encoder = timm_encoder(backbone, weights, source.channels)
    return Frozen(
        source, encoder, timm_views(backbone, source.channels), f"{backbone} with {Path(weights).name}", source.groups()
    )
