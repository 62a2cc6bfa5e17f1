"""What a collection of images is to the rest of the program: a length, and a way to read image i.

Labels, where there are any, stay here until evaluation asks for them: a training batch has no field to carry them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from evensphere.errors import InputError

# One image [C, H, W] as it is read: uint8, or float32 in 0..1 from a source of 16 bits
Pixels = UInt8[Tensor, "c _ _"] | Float32[Tensor, "c _ _"]

# The same for images of one size [B, C, H, W]
PixelBatch = UInt8[Tensor, "batch c _ _"] | Float32[Tensor, "batch c _ _"]


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message is the reason written to skipped.csv."""


class Batch(NamedTuple):
    """What training sees: pixels, and which images they are.

    images: uint8, or float32 in 0..1 from a source of 16 bits. Whole images [B, C, H, W] when all are of one size (the
        crops are then cut on the device), else one tensor of crops [B, C, size, size] for each view, cut by the
        loader's workers.
    index: each image's number in the source, int64 [B]; in a stream, whose images have none, its place in the epoch.
    """

    images: PixelBatch | tuple[PixelBatch, ...]
    index: Int64[Tensor, " batch"]  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a batch


class Source(ABC):
    """A collection of images with a fixed order.

    name: what messages call it.
    channels: of every image (1 grey, 3 RGB, 4 RGBA, or any other number).
    bits: 8 if images are read as uint8, 16 if as float32 in 0..1.
    image_size: (height, width) if every image has it, else None.
    class_names: of the labels, in label order; None when there are no labels.
    unlisted: what should have been part of it and could not even be listed, like a folder without permission: the
        location and the reason.
    """

    name: str
    channels: int
    bits: int = 8
    image_size: tuple[int, int] | None
    class_names: tuple[str, ...] | None
    unlisted: tuple[tuple[str, str], ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, i: int) -> Pixels:
        """Pixels of image i. Raises UnreadableImage with the reason when they cannot be decoded."""

    @abstractmethod
    def location(self, i: int) -> str:
        """Where image i comes from: a path relative to the source's root, or a name like 'digits[17]'."""

    @abstractmethod
    def labels(self) -> Int64[Tensor, " n"] | None:
        """Class of every image in [0, len(class_names)), or None. Only evaluation and subsetting call this."""

    def groups(self) -> Int64[Tensor, " n"] | None:
        """Which images are takes of one thing (a burst, a track, a patient): the same number in [0, number of groups)
        for all of them; None where that is not known. A group counts once in population statistics and stays together
        in splits."""
        return None

    def stamp(self, i: int) -> str | None:
        """A text that is another one as soon as image i may have changed, and that no other image has, such as its
        file's full path, size and time of change. None where that cannot be told; such images are not cached."""
        return None


class ArraySource(Source):
    """Images of one size, held in memory as one tensor [N, C, H, W]: uint8, or float32 in 0..1.

    numbers: each image's number in the original collection, int64 [N], so that a subset's locations still say which
        image is meant; None if this is the original.
    """

    def __init__(
        self,
        name: str,
        images: UInt8[Tensor, "n c h w"] | Float32[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
        numbers: Int64[Tensor, " n"] | None = None,
    ) -> None:
        if len(images) == 0:
            raise InputError(f"{name} holds no images; give at least two.")
        self.name = name
        self.images = images
        self.channels = images.shape[1]
        self.bits = 16 if images.is_floating_point() else 8
        self.image_size = (images.shape[2], images.shape[3])
        self.class_names = tuple(class_names) if class_names is not None else None
        self.numbers = numbers if numbers is not None else torch.arange(len(images))
        self._labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> Pixels:
        return self.images[i]

    def location(self, i: int) -> str:
        return f"{self.name}[{int(self.numbers[i])}]"

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self._labels


class Subset(Source):
    """Some images of another source, in a given order. An ArraySource's subset should be made with `take`, which
    keeps the pixels in one tensor."""

    def __init__(self, source: Source, indices: Int64[Tensor, " m"]) -> None:
        self.source = source
        self.indices = indices
        self.name, self.channels, self.bits = source.name, source.channels, source.bits
        self.image_size, self.class_names = source.image_size, source.class_names
        self.unlisted = source.unlisted

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, i: int) -> Pixels:
        return self.source.read(int(self.indices[i]))

    def location(self, i: int) -> str:
        return self.source.location(int(self.indices[i]))

    def labels(self) -> Int64[Tensor, " m"] | None:
        labels = self.source.labels()
        return None if labels is None else labels[self.indices]

    def groups(self) -> Int64[Tensor, " m"] | None:
        groups = self.source.groups()
        return None if groups is None else groups[self.indices]

    def stamp(self, i: int) -> str | None:
        return self.source.stamp(int(self.indices[i]))


def take(source: Source, indices: Int64[Tensor, " m"]) -> Source:
    """The images of `source` at `indices`, in that order."""
    if isinstance(source, ArraySource):
        labels = None if (given := source.labels()) is None else given[indices]
        return ArraySource(source.name, source.images[indices], labels, source.class_names, source.numbers[indices])
    if isinstance(source, Subset):
        return Subset(source.source, source.indices[indices])
    return Subset(source, indices)


def take_listed(source: Source, locations: Sequence[str]) -> Source:
    """The images of `source` at these locations, in their order.

    Raises InputError for a location that is not there, or there twice.
    """
    place = {source.location(i): i for i in range(len(source))}
    absent = [location for location in locations if location not in place]
    if absent:
        raise InputError(
            f"{len(absent)} of the {len(locations)} listed images are not in {source.name}, the first being "
            f"{absent[0]}; its own are called like {source.location(0)}."
        )
    if len(set(locations)) < len(locations):
        twice = next(location for location, times in Counter(locations).items() if times > 1)
        raise InputError(f"{twice} is listed more than once; list each image once.")
    return take(source, torch.tensor([place[location] for location in locations], dtype=torch.int64))


class Splits(NamedTuple):
    """The parts of a data set, by what each may be used for.

    A function that returns Splits is a data set: ours by their names (see SOURCES), anybody's by where they can be
    imported from, `Part("package.module:function", path=...)`; examples/own_data.py has arrays and a torch Dataset.

    pretrain: what the encoder learns from; its labels are never read in training.
    probe: labelled images that probes are fitted on (the paper: the whole balanced training set).
    validation: chooses settings. Outside probe; outside pretrain too, except in class folders without official splits.
    test: touched once, by evaluation.
    group_rule: how classes are grouped into many, medium, few: "thirds" or "shots".
    """

    pretrain: Source
    probe: Source | None = None
    validation: Source | None = None
    test: Source | None = None
    group_rule: str = "thirds"

    def train_counts(self) -> list[int] | None:
        """Images of each class in `pretrain` (the counts that define many, medium and few), None without labels."""
        labels, names = self.pretrain.labels(), self.pretrain.class_names
        if labels is None or names is None:
            return None
        return torch.bincount(labels, minlength=len(names)).tolist()
