"""Images decoded once and kept at the resolution that training needs, end to end in one piece of memory or one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from evensphere.data.scan import See, scan
from evensphere.data.source import ArraySource, Source, Subset, UnreadableImage

OVERSIZE = 2
_CROPPED_BY_THE_BATCH = 128 * 128  # pixels; larger images are cheaper to crop one by one


def training_side(view_size: int) -> int:
    """The short side, in pixels, that images are shrunk to before they are kept: twice that of a view.

    A crop of 1/4 of a square image then has the pixels of a view, and every larger crop is shrunk again, as it is in
    the original; only crops of less are enlarged where the original had detail. On photos with 3 to 7 times the side of
    a view, and crops of 8 to 100 % of the area, that changes a pixel by 1.4 levels of 255 in the mean (38 dB; 0.7
    levels for crops of 1/4 or more, 2.6 for smaller ones). With 1.5 times it is 2.6 levels and with 1.15, as ImageNet
    is often prepared, 4.3; three times would be 0.5 levels for 2.25 times the room.
    """
    return OVERSIZE * view_size


def shrink(image: UInt8[Tensor, "c h w"], side: int) -> UInt8[Tensor, "c _ _"]:
    """The image with a short side of `side` pixels, antialiased bicubic; as it is where it has no more."""
    if min(image.shape[1:]) <= side:
        return image
    from torchvision.transforms.v2 import InterpolationMode  # a second of start-up that small images do without
    from torchvision.transforms.v2 import functional as tv

    small: Tensor = tv.resize(image, [side], InterpolationMode.BICUBIC, antialias=True)
    return small


class ShrunkSource(Source):
    """The same pixels as a packed source's, decoded and shrunk again whenever they are read."""

    def __init__(self, source: Source, side: int) -> None:
        self.source, self.side = source, side
        self.name, self.channels = source.name, source.channels
        self.image_size, self.class_names = None, source.class_names

    def __len__(self) -> int:
        return len(self.source)

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        return shrink(self.source.read(i), self.side)

    def location(self, i: int) -> str:
        return self.source.location(i)

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self.source.labels()

    def groups(self) -> Int64[Tensor, " n"] | None:
        return self.source.groups()


class PackedSource(ShrunkSource):
    """Images of `source`, already decoded and shrunk.

    index: for each image where it begins among the bytes, its height and its width; [H, W, C] lie there. An image that
        cannot be read has height 0.
    """

    def __init__(self, source: Source, side: int, pixels: InMemory | MappedFile, index: NDArray[np.int64]) -> None:
        super().__init__(source, side)
        self.pixels, self.index = pixels, index

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        start, height, width = self.index[i].tolist()
        if height == 0:
            raise UnreadableImage("it could not be read when all images were decoded")
        end = start + height * width * self.channels
        image = self.pixels.array()[start:end].reshape(height, width, self.channels)
        return torch.from_numpy(image).permute(2, 0, 1)


class InMemory:
    """Bytes in memory, shared with worker processes."""

    def __init__(self, content: UInt8[Tensor, " n"]) -> None:
        self.content = content

    def array(self) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.content.numpy()
        return found


class MappedFile:
    """The bytes of a file, read by the system when they are needed. Another process maps it again by its path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # a private map: torch wants memory that could be written, though nobody does. A file of nothing has no map
        empty = path.stat().st_size == 0
        self._mapped = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, "c").view(np.ndarray)

    def array(self) -> NDArray[np.uint8]:
        return self._mapped

    def __reduce__(self) -> tuple[type[MappedFile], tuple[Path]]:
        return MappedFile, (self.path,)


class Packer:
    """Shrinks images and puts them end to end; `see` is what `scan` calls, from any thread.

    append: takes the pixels [H, W, C] of one image after the other.
    see_too: sees each image as it is kept.
    """

    def __init__(
        self, count: int, side: int, append: Callable[[NDArray[np.uint8]], object], see_too: See | None = None
    ) -> None:
        self.side, self.append, self.see_too = side, append, see_too
        self.index = np.zeros((count, 3), np.int64)
        self.size, self._lock = 0, Lock()

    def see(self, i: int, image: UInt8[Tensor, "c h w"]) -> None:
        small = shrink(image, self.side)
        if self.see_too is not None:
            self.see_too(i, small)
        pixels = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
        with self._lock:
            self.append(pixels)
            self.index[i] = self.size, *pixels.shape[:2]
            self.size += pixels.size


Progress = Callable[[int, int], None]
Found = tuple[Source, list[tuple[int, str]]]  # the images, numbered like the source's; (number, reason) of unreadable


def pack_in_memory(source: Source, side: int, workers: int, progress: Progress | None, see: See | None = None) -> Found:
    """Look at every image once (see `scan`) and keep it."""
    buffer = _GrowingBuffer()
    packer = Packer(len(source), side, buffer.append, see)
    unreadable = scan(source, workers, progress, packer.see)
    return PackedSource(source, side, InMemory(buffer.content(packer.size)), packer.index), unreadable


class _GrowingBuffer:
    def __init__(self) -> None:
        self._array = np.empty(2**20, np.uint8)
        self._used = 0

    def append(self, pixels: NDArray[np.uint8]) -> None:
        end = self._used + pixels.size
        if end > self._array.size:
            self._array.resize(max(end, self._array.size * 3 // 2), refcheck=False)  # in place where the system can
        self._array[self._used : end] = pixels.reshape(-1)
        self._used = end

    def content(self, size: int) -> Tensor:
        self._array.resize(max(size, 1), refcheck=False)
        return torch.from_numpy(self._array)


def as_array(source: Source) -> ArraySource | None:
    """The images as one tensor, where all have one size of 128 x 128 pixels or less: such sets are cropped a whole
    batch at a time, on the device. None for all others."""
    packed, numbers = (source.source, source.indices) if isinstance(source, Subset) else (source, slice(None))
    assert isinstance(packed, PackedSource)
    sizes = packed.index[numbers, 1:]
    if len(sizes) < 2 or (sizes != sizes[0]).any() or sizes[0].prod() > _CROPPED_BY_THE_BATCH:
        return None
    images = torch.empty(len(source), source.channels, *sizes[0].tolist(), dtype=torch.uint8)
    for i in range(len(source)):
        images[i] = source.read(i)
    return ArraySource(source.name, images)
