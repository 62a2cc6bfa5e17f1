"""Images that are decoded one by one, when they are read: files in a folder, members of an archive, rows of a table."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Int64, UInt8
from torch import Tensor

from evensphere.data.decode import EncodedImage, decode
from evensphere.data.source import Source, UnreadableImage
from evensphere.errors import InputError


class EncodedSource(Source):
    """A source that knows where the bytes of image i are.

    channels: 3 (RGB) or 1 (grey); images are converted.
    labels, class_names, groups: see Source.
    """

    def __init__(
        self,
        name: str,
        channels: int = 3,
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
        groups: Int64[Tensor, " n"] | None = None,
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f"Images from files have 3 channels (RGB) or 1 (grey), not {channels}.")
        self.name = name
        self.channels = channels
        self.image_size = None
        self.class_names = None if class_names is None else tuple(class_names)
        self._labels, self._groups = labels, groups

    @abstractmethod
    def open(self, i: int) -> EncodedImage:
        """The path of image i, or an open binary file of its bytes. Raises OSError where there is none."""

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        try:
            file = self.open(i)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        return decode(file, self.channels)

    def stamp(self, i: int) -> str | None:
        try:
            file = self.open(i)
            if isinstance(file, str | Path):
                status = os.stat(file)
                return f"{os.path.abspath(file)}/{status.st_size}/{status.st_mtime_ns}"
            file.close()
        except OSError as error:  # it may come back
            return f"{self.name}/{i}/{error.errno}"
        return None

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self._labels

    def groups(self) -> Int64[Tensor, " n"] | None:
        return self._groups


class FileSource(EncodedSource):
    """Image files: `paths` are relative to `root` (or absolute), and are the images' locations."""

    def __init__(
        self,
        name: str,
        root: str | Path,
        paths: Sequence[str],
        channels: int = 3,
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
        groups: Int64[Tensor, " n"] | None = None,
    ) -> None:
        super().__init__(name, channels, labels, class_names, groups)
        self.root = Path(root)
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, i: int) -> EncodedImage:
        return self.root / self.paths[i]

    def location(self, i: int) -> str:
        return as_text(self.paths[i])


def as_text(path: str) -> str:
    """A path as it can be written down: file names need not be valid text; reports and tables do."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
