"""Image collections in other people's formats, for tests, made by these people's own writers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import webdataset


def save_dataset(images: Path, out: Path) -> Path:
    """A folder of images as `datasets.save_to_disk` keeps it."""
    with _no_progress_bar():
        loaded = datasets.load_dataset("imagefolder", data_dir=str(images), cache_dir=str(out.with_name("cache")))
        only = loaded["train"] if list(loaded) == ["train"] else loaded
        only.save_to_disk(str(out))
    return out


def save_rows(out: Path, rows: Mapping[str, list[Any]], **features: Any) -> Path:
    """Rows as `datasets.save_to_disk` keeps them."""
    with _no_progress_bar():
        datasets.Dataset.from_dict(dict(rows), datasets.Features(features)).save_to_disk(str(out))
    return out


class _no_progress_bar:
    def __enter__(self) -> None:
        datasets.disable_progress_bars()

    def __exit__(self, *_: object) -> None:
        datasets.enable_progress_bars()


def write_shards(folder: Path, samples: Iterable[tuple[str, bytes]], per_shard: int, ending: str = "tar") -> Path:
    """shard-000000.tar ... by WebDataset's own writer; samples: (key, the bytes of a PNG)."""
    folder.mkdir(parents=True, exist_ok=True)
    pattern = str(folder / f"shard-%06d.{ending}")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as writer:
        for number, (key, png) in enumerate(samples):
            writer.write({"__key__": key, "png": png, "cls": number % 3, "json": {"caption": "no image"}})
    return folder


def png_files(folder: Path) -> list[tuple[str, bytes]]:
    """(path without its ending, bytes) of each PNG below a folder."""
    files = sorted(folder.rglob("*.png"), key=lambda file: file.relative_to(folder).as_posix().encode())
    return [(file.relative_to(folder).with_suffix("").as_posix(), file.read_bytes()) for file in files]
