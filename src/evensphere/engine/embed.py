"""Features of images by a frozen encoder, in one look at each: of a run, of timm with weights from a file, or of none.

No label is looked at, and streams are read in a row like everything else.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import ArraySource, Batch, Pixels, Source, UnreadableImage
from evensphere.data.stream import Arrived, Sample, Stream
from evensphere.engine.weights import load_weights
from evensphere.errors import InputError
from evensphere.nn.backbone import timm_backbone

See = Callable[[int, Pixels], None]
Miss = Callable[[str, str], None]

_BATCH, _BATCH_OF_LARGE, _LARGE = 512, 64, 64  # images; the same for views of more than so many pixels


class Embedded(NamedTuple):
    """What an encoder makes of the n images that can be read; float32 on the CPU.

    index: which image each is of the source, in a stream its place in the first epoch, ascending. locations: of each.
    features: of the whole image, seen as evaluation sees it. augmented: of random views of it, as training saw them.
    """

    index: Int64[Tensor, " n"]  # type: ignore[assignment]  # hides tuple.index, as in Batch
    locations: list[str]
    features: Float[Tensor, "n d"]
    augmented: tuple[Float[Tensor, "n d"], ...]


@torch.inference_mode()
def embed(
    source: Source,
    encoder: nn.Module,
    views: Views,
    augmented: int = 0,
    see: See | None = None,
    progress: Callable[[int, int], None] | None = None,
    miss: Miss | None = None,
) -> Embedded:
    """Read every image once and embed it.

    augmented: how many random views of each image are embedded too. see(i, pixels): is shown each image that was read,
        in any order and from any thread. progress(done, total): called after every batch.
    miss(location, reason): is told of each image that cannot be read.
    Raises InputError if no image can be read.
    """
    random = copy.copy(views)
    random.num_views, random.local_views = augmented, 0
    device = next((parameter.device for parameter in encoder.parameters()), torch.device("cpu"))
    was_training = encoder.training
    encoder.eval()
    parts: list[tuple[Tensor, list[str], list[Tensor]]] = []
    for index, locations, images in batches_of(source, batch_size_for(views), see, miss):
        pixels = [views.plain(images), *(random_views(random, images, index) if augmented else ())]
        parts.append((index, locations, [encoder(view.to(device)).float().cpu() for view in pixels]))
        if progress is not None:
            progress(int(index[-1]) + 1, len(source))
    encoder.train(was_training)
    if not parts:
        raise InputError(f"No image of {source.name} can be read; are the files where they are said to be?")
    features, *others = (torch.cat(same) for same in zip(*(part[2] for part in parts), strict=True))
    locations = [location for part in parts for location in part[1]]
    return Embedded(torch.cat([part[0] for part in parts]), locations, features, tuple(others))


def random_views(
    views: Views, images: Tensor | Sequence[Pixels], index: Int64[Tensor, " b"], epoch: int = 0
) -> tuple[Tensor, ...]:
    """Views as training draws them in that epoch, of images of one size (a tensor) or of several."""
    if isinstance(images, Tensor):
        return views(Batch(images, index), epoch)
    crops = (torch.stack(views.crops(images, epoch, view, index)) for view in views.all_views)
    return views(Batch(tuple(crops), index), epoch)


def batch_size_for(views: Views) -> int:
    """How many images are read, and held as they are in their files, at once."""
    return _BATCH if views.size <= _LARGE else _BATCH_OF_LARGE


# --- reading ----------------------------------------------------------------------------------------------------------


def batches_of(
    source: Source, size: int, see: See | None = None, miss: Miss | None = None
) -> Iterator[tuple[Int64[Tensor, " b"], list[str], Tensor | list[Pixels]]]:
    """(index, locations, images) of the readable images: one tensor for an array, else a list. see, miss: as there."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for here, numbers in _arriving(source, size):

            def read(i: int, here: Source = here) -> Pixels | None:
                try:
                    image = here.read(i)
                except UnreadableImage as error:
                    if miss is not None:
                        miss(here.location(i), str(error))
                    return None
                if see is not None:
                    see(i, image)
                return image

            images = dict(zip(numbers, pool.map(read, numbers), strict=True))
            readable = {i: image for i, image in images.items() if image is not None}
            if readable:
                index = torch.tensor(list(readable))
                whole = source.images[index] if isinstance(source, ArraySource) else list(readable.values())
                yield index, [here.location(i) for i in readable], whole


def _arriving(source: Source, size: int) -> Iterator[tuple[Source, list[int]]]:
    """Batch after batch: where its images can be read, and their numbers there."""
    if isinstance(source, Stream):
        arriving = zip(count(), source.epoch(0, 0), strict=False)
        while samples := dict(islice(arriving, size)):
            yield Arrived(source.name, samples, source.channels), list(samples)
    else:
        for numbers in torch.arange(len(source)).split(size):
            yield source, numbers.tolist()


def readable_again(source: Source, wanted: Sequence[int]) -> Source:
    """Where images that `embed` numbered can be read once more: the source, or of a stream the wanted ones alone."""
    if not isinstance(source, Stream):
        return source
    chosen = set(wanted)
    samples: dict[int, Sample] = {i: sample for i, sample in enumerate(source.epoch(0, 0)) if i in chosen}
    return Arrived(source.name, samples, source.channels)


# --- encoders that no run of ours has trained -------------------------------------------------------------------------


def timm_encoder(name: str, weights: str | Path, in_channels: int = 3) -> nn.Module:
    """A timm model with weights from a file (see `load_weights`), of which a classifier is left out. Raises InputError
    where the file cannot be read or lacks some of the model's weights."""
    encoder = timm_backbone(name, in_channels)
    load_weights(encoder, weights, name)
    return encoder.eval()


def timm_view_options(name: str) -> dict[str, Any]:
    """Options of views as a timm model wants its images: its size, its mean and standard deviation."""
    import timm  # a second of start-up that others do without

    config = timm.get_pretrained_cfg(name)
    assert config is not None, "timm_encoder has asked"
    return {"size": config.input_size[-1], "mean": list(config.mean), "std": list(config.std)}
