"""The parts of a run, from its recipe: where names become objects."""

from __future__ import annotations

from dataclasses import asdict

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import Source, Splits
from evensphere.data.stream import Stream
from evensphere.data.stream_loader import StreamLoader
from evensphere.engine.checkpoint import load_encoder, read_checkpoint
from evensphere.engine.evaluate import features_of, validation_monitor
from evensphere.engine.micro_batches import normalises_by_parts
from evensphere.engine.train import StepModule, Training
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods.base import Method
from evensphere.ops import collective
from evensphere.ops.schedule import Duration
from evensphere.recipes.beginning import Beginning
from evensphere.recipes.bursts import Groups, groups_of, weights_of
from evensphere.recipes.images import images_of, splits_of
from evensphere.recipes.network import build_encoder, build_method, teaching
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.storing import pixels_again
from evensphere.rundir import RunDir
from evensphere.values import check_memory


def build_training(
    recipe: Recipe,
    splits: Splits,
    source: Source,
    run: RunDir,
    pixels: Source | None = None,
    groups: Groups | None = None,
    begin: Beginning | None = None,
) -> Training:
    """All parts of a run of a recipe whose sizes are filled in (see `with_sizes`).

    source: the images to train on. run: its folder, which need not be there yet; teachers are found from it. pixels:
    the same images as the loader reads them (see `storing.Images`). groups: of which each counts once in the population
    statistics. begin: gives the encoder the weights it begins with, where that is not what a checkpoint does.
    """
    views: Views = build("views", recipe.views, seed=recipe.seed)
    epochs, batch_size = recipe.size
    _check_batch(min(batch_size, len(source)), views, source.channels)
    how = (batch_size, views, recipe.seed, recipe.workers)
    pixels = source if pixels is None else pixels
    loader = StreamLoader(pixels, *how) if isinstance(pixels, Stream) else Loader(pixels, *how)
    method = build_method(recipe, source.channels, len(source), begin, **teaching(recipe, run, source))
    if isinstance(source, Stream) and "index" in method.needs:
        source.refuse(f"the method {recipe.method.name}")
    _check_views(recipe.method.name, method, views)
    if recipe.micro_batches > 1 and collective.world_size() > 1 and normalises_by_parts(method.encoder):
        raise InputError(
            f"micro_batches = {recipe.micro_batches} was given with {collective.world_size()} processes, which share "
            "the encoder's BatchNorm; give more processes instead, or a backbone without BatchNorm (a ViT)."
        )
    # a run on some of the images is scored by the many, medium and few of the whole data set
    scored = splits if recipe.images is not None else splits._replace(pretrain=source)
    return Training(
        loader=loader,
        views=views,
        method=method,
        harmonizer=build_harmonizer(recipe.harmonizer, method, loader, groups),
        optimizer=_build_optimizer(recipe, method, source),
        learning_rate=build("schedule", recipe.schedule, epochs=epochs),
        epochs=epochs,
        seed=recipe.seed,
        evaluate_every=Duration.parse(recipe.evaluate_every),
        checkpoint_every=Duration.parse(recipe.checkpoint_every),
        keep_checkpoints=recipe.keep_checkpoints,
        snapshot_every=None if recipe.snapshot_every is None else Duration.parse(recipe.snapshot_every),
        compiled=recipe.compile,
        micro_batches=recipe.micro_batches,
        monitor=validation_monitor(scored, views, recipe.monitor, recipe.seed),
        description={"backbone": asdict(recipe.backbone), "views": asdict(recipe.views)},
    )


def build_harmonizer(
    part: Part, method: Method, loader: Loader, groups: Groups | None = None
) -> Harmonizer | NoHarmonizer:
    """What a part says, for the embeddings of a method and the images of a loader, of which each group counts once."""
    harmonizer: Harmonizer | NoHarmonizer = build(
        "harmonizer",
        part,
        dim=method.embedding_dim,
        num_samples=len(loader.source),
        steps_per_epoch=loader.steps_per_epoch,
        sample_weights=weights_of(groups),
        **({} if loader.indexed else {"population": "streaming"}),
    )
    return harmonizer


def _build_optimizer(recipe: Recipe, method: Method, source: Source) -> torch.optim.Optimizer:
    def features_by(run: str) -> Tensor:
        if isinstance(source, Stream):
            source.refuse(f"the optimizer {recipe.optimizer.name}")
        return _features(RunDir.existing(run), source)

    optimizer: torch.optim.Optimizer = build(
        "optimizer", recipe.optimizer, parameters=method.parameters(), features_of=features_by
    )
    if getattr(optimizer, "image_weights", None) is not None and not method.per_sample:
        raise InputError(
            f"The optimizer {recipe.optimizer.name} weighs images, but the loss of the method {recipe.method.name} is "
            "not made of one for each image; choose another method, or the optimizer asam."
        )
    return optimizer


def _features(run: RunDir, source: Source) -> Float[Tensor, "n d"]:
    """What the encoder of a finished run makes of images, seen as evaluation sees them."""
    recipe = Recipe.from_json(run.read_recipe())
    views: Views = build("views", recipe.views, seed=recipe.seed)
    encoder = build_encoder(recipe, recipe.resolved["channels"])
    load_encoder(run, encoder)
    encoder.to(Fabric(accelerator="auto", devices=1).device)
    features, index = features_of(encoder, source, views)
    if len(index) < len(source):
        raise InputError(f"{len(source) - len(index)} image(s) can no longer be read; start a new run without them.")
    return features


def _check_batch(images: int, views: Views, channels: int) -> None:
    """Refuse views that no batch of which would fit into memory, before one is made."""
    sides = [views.size] * views.num_views + [views.local_size] * views.local_views
    pixels = 4.0 * images * channels * sum(side**2 for side in sides)
    check_memory(
        f"A batch of {images:,} images, each in {len(sides)} views of {views.size} x {views.size} pixels,", pixels
    )


def _check_views(name: str, method: Method, views: Views) -> None:
    """Refuse views that the method has no use for, or too few of them."""
    if views.local_views and not method.local_views:
        raise InputError(
            f"views.local_views = {views.local_views} was given, but the method {name} makes no use of local views; "
            "set it to 0 or choose a method with multi-crop (see `evensphere methods`)."
        )
    if views.num_views != (method.full_views or max(2, views.num_views)):
        wanted = method.full_views or "2 or more"
        raise InputError(f"views.num_views = {views.num_views} was given, but the method {name} compares {wanted}.")


def revisit(run: RunDir, step: int) -> tuple[Training, Splits]:
    """The parts of a run as they were after `step` steps, on the CPU, to look at and not to go on with.

    step: one that a checkpoint was kept of (see Recipe.snapshot_every).
    """
    recipe = Recipe.from_json(run.read_recipe())
    splits = splits_of(recipe)
    splits = splits._replace(pretrain=images_of(run, splits.pretrain))
    pixels = pixels_again(recipe, splits.pretrain, torch.device("cpu"), Console(quiet=True))
    training = build_training(recipe, splits, splits.pretrain, run, pixels, groups_of(run))
    StepModule(training.method, training.harmonizer).load_state_dict(read_checkpoint(run, step)["model"])
    return training, splits
