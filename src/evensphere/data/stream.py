"""Images that come in a row, shard by shard: collections too large, or too far away, to be read by number.

An epoch's order is made of two addressed draws: the order of the shards, and which of the images waiting in a buffer
comes next. So it depends on nothing but the seed and the epoch, and a run that goes on in the middle of an epoch reads
the beginning again, without decoding it, to see exactly what it would have seen.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count, islice
from typing import NamedTuple, NoReturn

import torch
from jaxtyping import UInt8
from torch import Tensor

from evensphere.data.decode import EncodedImage
from evensphere.data.encoded import EncodedSource
from evensphere.data.source import Source, UnreadableImage
from evensphere.errors import InputError
from evensphere.ops.draw import permutation, uniform

SHUFFLE_BUFFER = 2048  # images; some 200 MB of photos


class Sample(NamedTuple):
    """One image as it comes: where from, for people, and its bytes."""

    location: str
    data: bytes


class Stream(Source):
    """A source that can only be read from its beginning: whoever asks for an image by its number is refused.

    samples: images an epoch has. Where the shards hold fewer (some could not be read, say) the epoch goes on with a
        second pass over them; where they hold more, each epoch leaves out others.
    shards: what the shards are called.
    shuffle_buffer: images that wait in memory, one of which comes next at random; 1 keeps each shard's own order.
        What lies further apart in the shards than this is hardly mixed, so write shards from shuffled images.

    skipped: the shards that ended before their end, with the reason.
    """

    def __init__(self, name: str, shards: Sequence[str], samples: int, channels: int, shuffle_buffer: int) -> None:
        for option, value in (("samples", samples), ("shuffle_buffer", shuffle_buffer)):
            if value < 1:
                raise InputError(f"{option} = {value} was given; it must be at least 1.")
        self.name, self.channels, self.image_size, self.class_names = name, channels, None, None
        self.shards, self.samples, self.shuffle_buffer = list(shards), samples, shuffle_buffer
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return self.samples

    @abstractmethod
    def read_shard(self, k: int) -> Iterator[Sample]:
        """The images of shard k in its own order. Raises UnreadableImage where it breaks off, after what came before,
        and InputError where a run had better stop, because the rest can be had another time."""

    def epoch(self, seed: int, epoch: int) -> Iterator[Sample]:
        """`samples` images in the order of this epoch. Raises InputError if there are none at all."""
        passes = (self._pass(seed, epoch, number) for number in count())
        return islice(chain.from_iterable(passes), self.samples)

    def first_images(self, number: int) -> list[UInt8[Tensor, "c _ _"]]:
        """The readable ones of the first few images, for a look at what is coming."""
        arrived = Arrived(self.name, dict(enumerate(islice(self._in_turn(0, 0, 0), number))), self.channels)
        found = []
        for place in arrived.samples:
            with suppress(UnreadableImage):
                found.append(arrived.read(place))
        if not found:
            raise InputError(f"None of the first {len(arrived)} images of {self.name} can be read; check the shards.")
        return found

    def _pass(self, seed: int, epoch: int, number: int) -> Iterator[Sample]:
        """Every image of every shard once."""
        return _shuffled(self._in_turn(seed, epoch, number), self.shuffle_buffer, seed, epoch, f"buffer/{number}")

    def _in_turn(self, seed: int, epoch: int, number: int) -> Iterator[Sample]:
        empty = True
        for k in permutation(seed, f"shards/{number}", epoch, len(self.shards)).tolist():
            try:
                for sample in self.read_shard(k):
                    empty = False
                    yield sample
            except UnreadableImage as reason:
                self.skipped[self.shards[k]] = str(reason)
        if empty:
            first = "".join(f"; {shard}: {reason}" for shard, reason in islice(self.skipped.items(), 1))
            raise InputError(f"No image was found in the {len(self.shards)} shard(s) of {self.name}{first}.")

    # --- what a stream has not --------------------------------------------------------------------------------------

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        self.refuse("this")

    def location(self, i: int) -> str:
        self.refuse("this")

    def labels(self) -> None:
        return None

    def refuse(self, what: str) -> NoReturn:
        """Say that something cannot be done with a stream."""
        raise InputError(
            f"{self.name} is a stream, whose images have no numbers, and {what} needs them; "
            "give the images as a folder, an archive or a list."
        )


class Arrived(EncodedSource):
    """Images of a stream that are here, by their place in the epoch."""

    def __init__(self, name: str, samples: Mapping[int, Sample], channels: int) -> None:
        super().__init__(name, channels)
        self.samples = dict(samples)

    def __len__(self) -> int:
        return len(self.samples)

    def open(self, i: int) -> EncodedImage:
        return io.BytesIO(self.samples[i].data)

    def location(self, i: int) -> str:
        return self.samples[i].location


def _shuffled(samples: Iterator[Sample], size: int, seed: int, epoch: int, purpose: str) -> Iterator[Sample]:
    """The same samples, each waiting among `size` others until it is drawn."""
    draws = _numbers(seed, epoch, purpose)
    waiting = list(islice(samples, size))
    for sample in samples:
        chosen = int(next(draws) * size)
        waiting[chosen], sample = sample, waiting[chosen]
        yield sample
    while waiting:
        chosen = int(next(draws) * len(waiting))
        waiting[chosen], waiting[-1] = waiting[-1], waiting[chosen]
        yield waiting.pop()


def _numbers(seed: int, epoch: int, purpose: str, block: int = 1024) -> Iterator[float]:
    """Numbers in [0, 1), each addressed by its place; drawn by the block, which is cheaper."""
    for start in count(0, block):
        yield from uniform(seed, purpose, epoch, torch.arange(start, start + block), 1)[:, 0].tolist()
