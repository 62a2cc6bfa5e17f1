"""What a network makes of some of the images that a run learnt from: as they are, and in two of the views that it was
trained on. Nobody asks for a label here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import ArraySource, Batch, Pixels, Source, UnreadableImage, take
from evensphere.engine.checkpoint import load_encoder, read_checkpoint
from evensphere.engine.train import StepModule
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer
from evensphere.ops.draw import permutation
from evensphere.recipes.building import build_training
from evensphere.recipes.bursts import groups_of
from evensphere.recipes.images import images_of, splits_of
from evensphere.recipes.recipe import Recipe, with_data
from evensphere.recipes.storing import pixels_again
from evensphere.rundir import RunDir

SAMPLE = 3_000  # images looked at, at most: shares are then known to two points, and neighbours take n^2 operations

_BATCH = 256
_EPOCH = 0  # whose views are drawn: any will do, the same for all checkpoints


class Look(NamedTuple):
    """What a network makes of n images.

    index: which of the images they are, int64 [n].
    features: of the images as evaluation sees them, float32 [n, d], on the CPU.
    views: of two augmented views of each [n, 2, d]; None where there are no views.
    embeddings: of those views, behind the projector [n, 2, e]; None where there is none.
    """

    index: Int64[Tensor, " n"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a look
    features: Float[Tensor, "n d"]
    views: Float[Tensor, "n 2 d"] | None = None
    embeddings: Float[Tensor, "n 2 e"] | None = None


@torch.inference_mode()
def look(encoder: nn.Module, projector: nn.Module | None, images: Source, views: Views, device: torch.device) -> Look:
    """What the networks, which are on the device, make of every readable image. Both are left in evaluation mode, where
    an image's features do not depend on the others of its batch."""
    encoder.eval()
    if projector is not None:
        projector.eval()
    numbers, plain, seen = [], [], []
    for batch, whole in _batches(images, views):
        numbers.append(batch.index)
        plain.append(encoder(views.plain(whole).to(device)).float().cpu())
        both = views(batch, _EPOCH)[:2]
        features = torch.stack([encoder(view.to(device)).float() for view in both], dim=1)
        embeddings = None if projector is None else _projected(projector, features).cpu()
        seen.append((features.cpu(), embeddings))
    if not plain:
        raise InputError(f"No image of {images.name} can be read; are the files where they are said to be?")
    embedded = [embeddings for _, embeddings in seen if embeddings is not None]
    # out of inference mode, so that others may compute with them as they like
    with torch.inference_mode(False):
        return Look(
            torch.cat(numbers).clone(),
            torch.cat(plain).clone(),
            torch.cat([features for features, _ in seen]).clone(),
            torch.cat(embedded).clone() if embedded else None,
        )


def _projected(projector: nn.Module, features: Float[Tensor, "n 2 d"]) -> Float[Tensor, "n 2 e"]:
    return torch.stack([projector(view).float() for view in features.unbind(1)], dim=1)


def _batches(images: Source, views: Views) -> Iterator[tuple[Batch, Tensor | list[Pixels]]]:
    """The images, as the views want them and whole; the unreadable are passed over."""
    for index in torch.arange(len(images)).split(_BATCH):
        if isinstance(images, ArraySource):
            whole = images.images[index.to(images.images.device)]
            yield Batch(whole, index), whole
            continue
        read: dict[int, Pixels] = {}
        for i in index.tolist():
            try:
                read[i] = images.read(i)
            except UnreadableImage:
                continue
        if read:
            pixels, kept = list(read.values()), torch.tensor(list(read))
            crops = tuple(torch.stack(views.crops(pixels, _EPOCH, view, kept)) for view in views.all_views)
            yield Batch(crops, kept), pixels


class Revisited:
    """A run's networks at any of its kept checkpoints, and a sample of the images it learnt from.

    data: where these images lie now, if they have moved. most: images in the sample.

    steps: of the kept checkpoints, ascending; a run without any is looked at as it ended.
    sample: the images looked at, the same for all checkpoints. index: their numbers in the run's images.
    count: images of the run. harmonizer: None for a run without one.
    """

    def __init__(self, run: RunDir, data: Sequence[str] = (), most: int = SAMPLE) -> None:
        self.run, recipe = run, Recipe.from_json(run.read_recipe())
        self.recipe = with_data(recipe, *data)
        self.splits = splits_of(self.recipe)
        source = images_of(run, self.splits.pretrain)
        self.splits = self.splits._replace(pretrain=source)
        self.training = build_training(self.recipe, self.splits, source, run, groups=groups_of(run))
        self._module = StepModule(self.training.method, self.training.harmonizer)
        self.device = Fabric(accelerator="auto", devices=1).device
        self._module.to(self.device)
        self.steps = run.checkpoint_steps()
        self.count = len(source)
        self.index = some_of(self.count, most)
        self.sample = take(source, self.index)
        self._pixels = _kept(self.recipe, self.sample)

    @property
    def encoder(self) -> nn.Module:
        return self.training.method.encoder

    @property
    def harmonizer(self) -> Harmonizer | None:
        harmonizer = self.training.harmonizer
        return harmonizer if isinstance(harmonizer, Harmonizer) else None

    def at(self, step: int | None) -> Look:
        """The networks as they were after `step` steps; None is the finished encoder alone."""
        if step is None:
            load_encoder(self.run, self.encoder)
            return look(self.encoder, None, self._pixels, self.training.views, self.device)
        self._module.load_state_dict(read_checkpoint(self.run, step, self.device)["model"])
        projector = getattr(self.training.method, "projector", None)
        projector = projector if isinstance(projector, nn.Module) else None  # DINO's lies elsewhere
        return look(self.encoder, projector, self._pixels, self.training.views, self.device)


def some_of(count: int, most: int) -> Int64[Tensor, " m"]:
    """The numbers of at most `most` of `count` images, ascending; the same ones every time."""
    return permutation(0, "diagnosis/sample", 0, count)[:most].sort().values


def _kept(recipe: Recipe, sample: Source) -> Source:
    """The sample, decoded once if that is possible, since every checkpoint looks at it."""
    storage = "memory" if sample.bits == 8 else "files"
    return pixels_again(replace(recipe, storage=storage), sample, torch.device("cpu"), Console(quiet=True))
