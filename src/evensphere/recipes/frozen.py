"""Images and a frozen encoder to look at them with: those of a run, or anybody's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lightning_fabric import Fabric
from torch import nn

from evensphere.data.augment import Views
from evensphere.data.source import Source, Splits
from evensphere.engine.checkpoint import describe_encoder, load_encoder, read_encoder
from evensphere.engine.embed import timm_encoder, timm_view_options
from evensphere.errors import InputError
from evensphere.nn.statistics import ImageStatistics
from evensphere.recipes.bursts import Groups, groups_of
from evensphere.recipes.channels import with_channels
from evensphere.recipes.images import images_of, splits_of
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe, collection, get_recipe, read_part, with_data, with_view_size
from evensphere.recipes.trust import trusting
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
    target: str | Path,
    data: Sequence[str] = (),
    backbone: str | None = None,
    weights: str | Path | None = None,
    trust: bool = False,
) -> Frozen:
    """The images of `target` and an encoder for them.

    target: a run folder, or a collection of images (a path of any kind, or a data set's name).
    data: other images for the run's encoder, or where the data set of that name lies.
    backbone, weights: for a collection, see `by_weights`. Without them there is no network, and images are told apart
        by simple statistics.
    trust: whether code of the user's own, which the run's recipe or the weights name, may run.
    Raises InputError where something is missing or does not fit.
    """
    is_run = RunDir(target).recipe_file.is_file()
    if is_run and (backbone or weights):
        raise InputError(f"{target} is a run, which has an encoder of its own; leave out --backbone and --weights.")
    with trusting(trust):
        found = _of_run(RunDir(target), data) if is_run else _of_images(str(target), data, backbone, weights)
    return found._replace(encoder=found.encoder.to(Fabric(accelerator="auto", devices=1).device))


def data_of(target: str | Path, data: Sequence[str] = (), trust: bool = False) -> Part:
    """What names the images of `frozen` in a recipe."""
    run = RunDir(target)
    if not run.recipe_file.is_file():
        recipe = with_data(get_recipe("folder"), str(target))
        return with_data(recipe, *data).data
    with trusting(trust):
        return collection(*data) if data else Recipe.from_json(run.read_recipe()).data


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
    recipe = replace(get_recipe("folder"), data=data_of(target, data))
    splits: Splits = build("data", recipe.data)
    source = splits.pretrain
    if backbone is not None or weights is not None:
        return by_weights(source, backbone, weights)
    views = views_for(source, with_view_size(recipe, source).views)
    return Frozen(source, ImageStatistics(), views, "simple image statistics", source.groups())


def by_weights(source: Source, backbone: str | None, weights: str | Path | None) -> Frozen:
    """Images with a network whose weights are in a file, on the CPU.

    backbone: the timm model that the file is of (see `engine.embed.timm_encoder`); None for the encoder.safetensors of
        a run, which says itself what it is. Raises InputError where the file cannot be read, or does not fit.
    """
    if weights is None:
        raise InputError(
            f"The backbone {backbone} was given without weights, and nothing is downloaded here; the two go together, "
            "so give --weights FILE as well."
        )
    file = Path(weights).expanduser()
    if backbone is None:
        return _by_own_weights(source, file)
    name = backbone.removeprefix("timm/")
    encoder = timm_encoder(name, file, source.channels)
    views = views_for(source, Part("photos", **timm_view_options(name)))
    return Frozen(source, encoder, views, f"{name} with {file.name}", source.groups())


def _by_own_weights(source: Source, file: Path) -> Frozen:
    description = describe_encoder(file)
    try:
        parts = {kind: read_part(kind, description[kind]) for kind in ("backbone", "views")}
    except (KeyError, TypeError) as error:
        raise InputError(f"{file} does not say what network it is of; add --backbone NAME, a timm model.") from error
    views: Views = build("views", parts["views"], seed=0)
    encoder: nn.Module = build("backbone", parts["backbone"], in_channels=source.channels, image_sizes=views.sizes)
    read_encoder(file, encoder)
    return Frozen(source, encoder, views, f"the encoder {file.name}", source.groups())


def views_for(source: Source, part: Part) -> Views:
    """Views for as many channels as the images have, whatever the part says of others."""
    if source.channels != len(part.options.get("mean", ())):
        part = Part(part.name, **{name: value for name, value in part.options.items() if name not in ("mean", "std")})
    recipe = with_channels(replace(get_recipe("folder"), views=part), source)
    views: Views = build("views", recipe.views, seed=recipe.seed)
    return views
