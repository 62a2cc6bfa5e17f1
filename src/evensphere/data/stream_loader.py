"""Batches of a stream: this process reads the bytes in the epoch's order, its workers decode and crop.

An image's place in the epoch is the address of its draws. So it gets the same views however many workers there are, and
a run that goes on inside an epoch sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

from evensphere.data.augment import Views
from evensphere.data.loader import Crops, Item, Loader
from evensphere.data.source import Batch
from evensphere.data.stream import Arrived, Sample, Stream
from evensphere.errors import InputError
from evensphere.ops import collective

_ENOUGH = 256  # images by which a stream is judged


class StreamLoader(Loader):
    """A Loader of a stream: an image's number is its place in the epoch. Of several processes each reads everything and
    keeps its share, by place in the batch."""

    indexed: ClassVar[bool] = False

    def __init__(self, stream: Stream, batch_size: int, views: Views, seed: int, workers: int | None = None) -> None:
        super().__init__(stream, batch_size, views, seed, workers)
        self.stream = stream

    def batches(self, first_step: int, total_steps: int) -> Iterator[tuple[int, Batch]]:
        """Raises InputError when more than half of what came cannot be read: that is more than dirt."""
        came = read = 0
        for step, batch in super().batches(first_step, total_steps):
            came, read = came + len(self.index(step)), read + len(batch.index)
            if came >= min(_ENOUGH, len(self.stream)) and 2 * read < came:
                location, reason = next(iter(self.skipped.items()))
                raise InputError(
                    f"{came - read} of the first {came} images of {self.stream.name} cannot be read, the first being "
                    f"{location} ({reason}); check the shards."
                )
            yield step, batch

    def first(self, count: int) -> Batch | None:
        """The first images that come, in whatever order."""
        images = self.stream.first_images(count)
        if len(images) < 2:
            return None
        index = torch.arange(len(images))
        views = (torch.stack(self.views.crops(images, 0, view, index)) for view in self.views.all_views)
        return Batch(tuple(views), index)

    def index(self, step: int) -> Int64[Tensor, " batch"]:
        start = step % self.steps_per_epoch * self.batch_size
        batch = torch.arange(start, min(start + self.batch_size, len(self.stream)))
        return batch.tensor_split(collective.world_size())[collective.rank()]

    def crops(self, first_step: int, total_steps: int) -> tuple[Dataset[Item], Iterator[list[Any]]]:
        return _StreamCrops(self.stream, self.views), self._keys(first_step, total_steps)

    def _keys(self, first_step: int, total_steps: int) -> Iterator[list[tuple[int, int, Sample]]]:
        """Inside an epoch the images before `first_step` are read, too, and passed over."""
        each = self.steps_per_epoch
        for epoch in range(first_step // each, -(-total_steps // each)):
            arriving = enumerate(self.stream.epoch(self.seed, epoch))
            for step in range(max(first_step, epoch * each), min(epoch * each + each, total_steps)):
                places = self.index(step).tolist()
                mine = ((place, sample) for place, sample in arriving if place >= places[0])
                yield [(epoch, place, sample) for place, sample in islice(mine, len(places))]
                self.skipped.update(self.stream.skipped)


class _StreamCrops(Dataset[Item]):
    """`Crops` of images whose bytes come along: a batch's by (epoch, place in the epoch, sample)."""

    def __init__(self, stream: Stream, views: Views) -> None:
        self.name, self.channels, self.views = stream.name, stream.channels, views

    def __getitems__(self, keys: list[tuple[int, int, Sample]]) -> list[Item]:
        arrived = Arrived(self.name, {place: sample for _, place, sample in keys}, self.channels)
        return Crops(arrived, self.views).__getitems__([(epoch, place) for epoch, place, _ in keys])
