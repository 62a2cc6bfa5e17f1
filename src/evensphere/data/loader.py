"""Batches of a source, in an order that depends on nothing but the seed, the epoch and the place in the epoch.

A run asks for its batches from the step it is at, so a resumed run sees what an uninterrupted one would have seen.
Images of one size that are held in memory are only gathered here, and cropped on the device; all others are cropped one
by one with the same addressed parameters: files by worker processes, which decode them, and those that were decoded
before (see `storage`) here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from evensphere.data.augment import Views
from evensphere.data.packed import PackedSource
from evensphere.data.source import ArraySource, Batch, Pixels, Source, Subset, UnreadableImage
from evensphere.errors import InputError
from evensphere.ops import collective
from evensphere.ops.draw import permutation

Item = tuple[int, tuple[Tensor, ...]] | tuple[str, str]
_TOGETHER, _TOGETHER_BYTES = 32, 2**24  # images whose boxes are drawn at once


class Loader:
    """The batches of a whole run.

    batch_size: images per step over all processes, each of which sees a share of them: a run's batches are the same
        however many processes there are. The last, partial batch of an epoch is kept if it has at least two images (a
        single image has neither negatives nor batch statistics); a stream's epoch ends without it.
    workers: processes that decode and crop; None chooses. Images in one tensor need none, and those that are decoded
        already only where a GPU would have to wait for them.
    skipped: images that could not be read while training, as (location, reason); the batch goes on without them.
    indexed: whether a batch's index says which images it holds, whatever the epoch.
    """

    indexed: ClassVar[bool] = True

    def __init__(self, source: Source, batch_size: int, views: Views, seed: int, workers: int | None = None) -> None:
        processes = collective.world_size()
        least = max(2, processes)
        if batch_size < least:
            raise InputError(f"batch_size = {batch_size} was given; a step needs at least {least} images.")
        if batch_size % processes:
            raise InputError(
                f"batch_size = {batch_size} was given, which {processes} processes cannot share alike; "
                f"give a multiple of {processes}."
            )
        if len(source) < least:
            raise InputError(f"{source.name} has {len(source)} readable image(s); training needs at least {least}.")
        self.source, self.views, self.seed = source, views, seed
        self.batch_size = min(batch_size, len(source))
        self.workers = _default_workers(source) if workers is None else workers
        full, rest = divmod(len(source), self.batch_size)
        if not self.indexed:  # of a stream, which nobody has looked at, too few of a small batch may be readable
            rest = 0
        if 2 <= rest < processes:
            raise InputError(
                f"{len(source)} images in batches of {self.batch_size} leave {rest} for the last batch of an epoch, "
                f"too few for {processes} processes; give another batch_size, or fewer devices."
            )
        self.steps_per_epoch = full + (rest >= 2)
        self.skipped: dict[str, str] = {}

    def batches(self, first_step: int, total_steps: int) -> Iterator[tuple[int, Batch]]:
        """(step, batch) from `first_step` up to `total_steps`."""
        if isinstance(self.source, ArraySource):
            for step in range(first_step, total_steps):
                index = self.index(step)
                images = self.source.images
                yield step, Batch(images.index_select(0, index.to(images.device)), index)  # faster than indexing
        elif first_step < total_steps:
            yield from zip(range(first_step, total_steps), self._decoded(first_step, total_steps), strict=True)

    def first(self, count: int) -> Batch | None:
        """The first images of the run, without workers; None if they cannot be read. For a probe."""
        index = self.index(0)[:count]
        if isinstance(self.source, ArraySource):
            return Batch(self.source.images[index.to(self.source.images.device)], index)
        return _collate(Crops(self.source, self.views).__getitems__([(0, i) for i in index.tolist()]))[0]

    def index(self, step: int) -> Int64[Tensor, " batch"]:
        """Which images this process sees at a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._order = epoch, permutation(self.seed, "order", epoch, len(self.source))
        batch = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return batch.tensor_split(collective.world_size())[collective.rank()]

    def crops(self, first_step: int, total_steps: int) -> tuple[Dataset[Item], Iterator[list[Any]]]:
        """What workers make crops with, and the keys of the batches that they are asked for."""
        keys = (
            [(step // self.steps_per_epoch, i) for i in self.index(step).tolist()]
            for step in range(first_step, total_steps)
        )
        return Crops(self.source, self.views), keys

    def _decoded(self, first_step: int, total_steps: int) -> Iterator[Batch]:
        crops, keys = self.crops(first_step, total_steps)
        least = 1 if collective.world_size() > 1 else 2
        decoded = DataLoader(
            crops,
            batch_sampler=_Once(keys),
            num_workers=self.workers,
            collate_fn=partial(_collate, least=least),
            worker_init_fn=_leave_signals_to_the_parent,
            pin_memory=torch.cuda.is_available(),
        )
        for batch, failed in decoded:
            self.skipped.update(failed)
            if batch is None:
                few = "Fewer than two images of a batch" if least == 2 else "No image of a process's share of a batch"
                raise InputError(
                    f"{few} could be read, the first reason being: {next(iter(failed.items()))[1]}; is the data still "
                    "where it was?"
                )
            yield batch


def _leave_signals_to_the_parent(_: int) -> None:
    """A group of its own for each worker: Ctrl-C and its like are sent to a whole group, and a run that is asked to
    stop needs its workers to finish the step."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _default_workers(source: Source) -> int:
    if (
        isinstance(source.source if isinstance(source, Subset) else source, PackedSource)
        and not torch.cuda.is_available()
    ):
        return 0  # cropping is some hundredths of the step it would be beside
    return min(max(1, (os.cpu_count() or 1) // collective.world_size()), 16)


class _Once:
    """A batch sampler over a generator: the keys of the batches still to come."""

    def __init__(self, keys: Iterator[list[Any]]) -> None:
        self.keys = keys

    def __iter__(self) -> Iterator[list[Any]]:
        return self.keys


class Crops(Dataset[Item]):
    """One image's crops for each view, by (epoch, index); where it cannot be read, its location and the reason."""

    def __init__(self, source: Source, views: Views) -> None:
        self.source, self.views = source, views

    def __getitem__(self, key: tuple[int, int]) -> Item:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Item]:
        """Those of a batch, of one epoch. A few images at a time, which makes drawing their boxes cheap and keeps few
        of them in memory."""
        items: list[Item] = []
        images: dict[int, Pixels] = {}
        for epoch, index in keys:
            try:
                images[index] = self.source.read(index)
            except UnreadableImage as reason:
                items.append((self.source.location(index), str(reason)))
            if len(images) == _TOGETHER or sum(image.numel() for image in images.values()) > _TOGETHER_BYTES:
                items += self._cut(images, epoch)
                images = {}
        return items + (self._cut(images, epoch) if images else [])

    def _cut(self, images: dict[int, Pixels], epoch: int) -> list[Item]:
        index, pixels = torch.tensor(list(images)), list(images.values())
        views = [self.views.crops(pixels, epoch, view, index) for view in self.views.all_views]
        return list(zip(images, zip(*views, strict=True), strict=True))


def _collate(items: list[Item], least: int = 2) -> tuple[Batch | None, dict[str, str]]:
    """The batch, or None if fewer than `least` images are left; and what could not be read."""
    failed = {item[0]: item[1] for item in items if isinstance(item[0], str) and isinstance(item[1], str)}
    read = [(item[0], item[1]) for item in items if isinstance(item[0], int) and isinstance(item[1], tuple)]
    if len(read) < least:
        return None, failed or {"batch": "too few images left"}
    views = zip(*(crops for _, crops in read), strict=True)
    # torch's own collation puts what a worker made into shared memory at once
    return Batch(tuple(default_collate(list(view)) for view in views), torch.tensor([i for i, _ in read])), failed
