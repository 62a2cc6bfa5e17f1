"""Image files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from evensphere.data.encoded import EncodedSource
from evensphere.data.source import Source


def write(path: Path, colour: tuple[int, ...] = (200, 30, 60), size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def recorded_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the image files that are read from now on."""
    reads: list[int] = []
    read = EncodedSource.read

    def record(self: EncodedSource, i: int) -> Tensor:
        reads.append(i)
        return read(self, i)

    monkeypatch.setattr(EncodedSource, "read", record)
    return reads


def locations(source: Source) -> list[str]:
    return [source.location(i) for i in range(len(source))]


def class_folders(root: Path, **counts: int) -> Path:
    """A folder for each class with so many images, which tell their number by their red."""
    for name, count in counts.items():
        for i in range(count):
            write(root / name / f"{i}.png", (i, 0, 0))
    return root
