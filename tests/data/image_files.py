"""Image files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from evensphere.data.source import Source


def write(path: Path, colour: tuple[int, ...] = (200, 30, 60), size: tuple[int, int] = (8, 6), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def locations(source: Source) -> list[str]:
    return [source.location(i) for i in range(len(source))]


def class_folders(root: Path, **counts: int) -> Path:
    """A folder for each class with so many images, which tell their number by their red."""
    for name, count in counts.items():
        for i in range(count):
            write(root / name / f"{i}.png", (i, 0, 0))
    return root
