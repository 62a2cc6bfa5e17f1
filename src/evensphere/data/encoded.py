"""Images that are decoded one by one, when they are read: files in a folder, members of an archive, rows of a table."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from evensphere.data.decode import EncodedImage, count_channels, decode
from evensphere.data.source import Pixels, Source, UnreadableImage
from evensphere.errors import InputError
from evensphere.ops.draw import permutation

Channels = int | Literal["auto"]

_LOOKED_AT = 64  # images whose headers tell a collection's channels


class EncodedSource(Source):
    """A source that knows where the bytes of image i are.

    channels: images are converted to that many (see `decode`). "auto" asks the headers of up to 64 images, chosen
        without regard to what they are: 1 if all are grey, 3 if some are in colour, more if some have more.
    bits: 8, or 16 to keep the depth of images that have it (see `decode`).
    labels, class_names, groups: see Source.
    """

    def __init__(
        self,
        name: str,
        channels: Channels = "auto",
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
        groups: Int64[Tensor, " n"] | None = None,
        bits: int = 8,
    ) -> None:
        if channels != "auto" and channels < 1:
            raise InputError(f"channels = {channels} was given; images have 1 (grey), 3 (RGB), 4 (RGBA) or more.")
        if bits not in (8, 16):
            raise InputError(f"bits = {bits} was given; images are read with 8 or 16.")
        self.name = name
        self.bits = bits
        self._channels = channels
        self.image_size = None
        self.class_names = None if class_names is None else tuple(class_names)
        self._labels, self._groups = labels, groups

    @cached_property
    def channels(self) -> int:  # type: ignore[override]  # found out when it is first asked for
        return _common_channels(self) if self._channels == "auto" else self._channels

    @abstractmethod
    def open(self, i: int) -> EncodedImage:
        """The path of image i, or an open binary file of its bytes. Raises OSError where there is none."""

    def read(self, i: int) -> Pixels:
        try:
            file = self.open(i)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        return decode(file, self.channels, self.bits)

    def stamp(self, i: int) -> str | None:
        try:
            file = self.open(i)
            if isinstance(file, str | Path):
                status = os.stat(file)
                return f"{os.path.abspath(file)}/{status.st_size}/{status.st_mtime_ns}"
            file.close()
        except UnreadableImage:  # of an archive
            return None
        except (OSError, ValueError) as error:  # it may come back; a path with a NUL will not
            return f"{self.name}/{i}/{getattr(error, 'errno', None)}"
        return None

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self._labels

    def groups(self) -> Int64[Tensor, " n"] | None:
        return self._groups


def _common_channels(source: EncodedSource) -> int:
    """The most that a header tells; unreadable images have no say, and 3 is for a collection of nothing else."""
    counts = set()
    for i in permutation(0, "channels", 0, len(source))[:_LOOKED_AT].tolist():
        try:
            counts.add(count_channels(source.open(i)))
        except (OSError, UnreadableImage):
            continue
    return max(counts, default=3)


class FileSource(EncodedSource):
    """Image files: `paths` are relative to `root` (or absolute), and are the images' locations where no others are
    given."""

    def __init__(
        self,
        name: str,
        root: str | Path,
        paths: Sequence[str],
        channels: Channels = "auto",
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
        groups: Int64[Tensor, " n"] | None = None,
        bits: int = 8,
        locations: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, channels, labels, class_names, groups, bits)
        self.root = Path(root)
        self.paths = list(paths)
        self.locations = None if locations is None else list(locations)

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, i: int) -> EncodedImage:
        return self.root / self.paths[i]

    def location(self, i: int) -> str:
        return as_text(self.paths[i]) if self.locations is None else self.locations[i]


# control characters and line ends, bytes that are no UTF-8, and what would be taken for one of our own escapes
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\udc80-\udcff]|\\(?=x[0-9a-f]{2})")


def as_text(path: str) -> str:
    r"""A path as it can be written down in one line: file names need not be valid text; reports and lists must be.

    What cannot be written is spelled byte by byte, like \x0a for the end of a line. `as_path` reads it back.
    """
    return _UNWRITABLE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in os.fsencode(found[0])), path)


def as_path(text: str) -> str:
    """The path that `as_text` wrote down."""
    if "\\x" not in text:
        return text
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), os.fsencode(text))
    return os.fsdecode(raw)
