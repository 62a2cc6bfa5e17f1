"""The cache on disk: found again, never stale, never half built, one builder at a time."""

from __future__ import annotations

import json
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.data.image_files import write

from evensphere.data import folder as folders_of_images
from evensphere.data.cache import build_cache, cache_root, identity, open_cache
from evensphere.data.encoded import FileSource
from evensphere.data.packed import Packer, ShrunkSource
from evensphere.data.source import ArraySource, Source, take

SIDE = 12


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENSPHERE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for i in range(6):
        write(tmp_path / "images" / f"{i}.png", (i, 2 * i, 3 * i), (20 + i, 15))
    (tmp_path / "images" / "broken.png").write_bytes(b"")
    return tmp_path / "images"


def same(one: Source, other: Source) -> bool:
    return all(one.read(i).equal(other.read(i)) for i in range(6))


def folders() -> list[Path]:
    return [entry for entry in cache_root().iterdir() if entry.is_dir()]


def test_a_cache_is_built_once_and_found_again(images: Path) -> None:
    source = folders_of_images.folder(images).pretrain
    assert open_cache(source, SIDE) is None
    built, unreadable = build_cache(source, SIDE, 2)
    assert same(built, ShrunkSource(source, SIDE))
    assert unreadable == [(6, "the file is empty")]
    found = open_cache(folders_of_images.folder(images).pretrain, SIDE)
    assert found is not None
    assert same(found[0], built)
    assert found[1] == unreadable
    (folder,) = folders()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["version"], manifest["images"], manifest["short_side"]) == (1, 7, SIDE)
    assert manifest["bytes"] == (folder / "pixels.u8").stat().st_size
    assert manifest["identity"] == folder.name == identity(source, SIDE)


def test_a_second_build_decodes_nothing_but_shows_everything(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folders_of_images.folder(images).pretrain
    build_cache(source, SIDE, 1)

    def refuse(self: FileSource, i: int) -> torch.Tensor:
        raise AssertionError("decoded again")

    monkeypatch.setattr(FileSource, "read", refuse)
    seen: list[int] = []
    build_cache(source, SIDE, 1, see=lambda i, image: seen.append(i))
    assert seen == list(range(6))


@pytest.mark.parametrize("change", ["content", "time", "new file", "gone", "elsewhere", "side"])
def test_another_collection_has_another_cache(images: Path, change: str) -> None:
    build_cache(folders_of_images.folder(images).pretrain, SIDE, 1)
    file, side = images / "3.png", SIDE
    if change == "content":
        write(file, (9, 9, 9), (90, 80))
    elif change == "time":
        os.utime(file, ns=(1, 1))
    elif change == "new file":
        write(images / "new.png")
    elif change == "gone":
        file.unlink()
    elif change == "elsewhere":
        images = images.rename(images.with_name("moved"))
    else:
        side = 13
    assert open_cache(folders_of_images.folder(images).pretrain, side) is None


@pytest.mark.parametrize("damage", ["no manifest", "half a manifest", "short pixels", "no index", "other list"])
def test_a_half_built_cache_is_not_used_but_built_again(images: Path, damage: str) -> None:
    source = folders_of_images.folder(images).pretrain
    build_cache(source, SIDE, 1)
    (folder,) = folders()
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "half a manifest":
        (folder / "manifest.json").write_text('{"version": 1, "iden')
    elif damage == "short pixels":
        os.truncate(folder / "pixels.u8", 100)
    elif damage == "no index":
        (folder / "index.npy").unlink()
    else:
        (folder / "manifest.json").write_text("[]")
    assert open_cache(source, SIDE) is None
    assert same(build_cache(source, SIDE, 1)[0], ShrunkSource(source, SIDE))


def test_a_full_disk_leaves_nothing_behind(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def see(self: Packer, i: int, image: torch.Tensor) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Packer, "see", see)
    with pytest.raises(OSError, match="No space left"):
        build_cache(folders_of_images.folder(images).pretrain, SIDE, 2)
    assert folders() == []


def test_of_two_builders_the_second_waits_and_uses_it(images: Path) -> None:
    """The first stops half way, holding the lock, until the second says that it waits."""
    half_way, waits, go_on = threading.Event(), threading.Event(), threading.Event()
    reads: list[int] = []

    class Watched(FileSource):
        def read(self, i: int) -> torch.Tensor:
            reads.append(i)
            return super().read(i)

    def see(i: int, image: torch.Tensor) -> None:
        if i == 3:
            half_way.set()
            assert go_on.wait(60)

    with ThreadPoolExecutor(2) as pool:
        watched = folders_of_images.folder(images).pretrain
        watched.__class__ = Watched
        first = pool.submit(build_cache, watched, SIDE, 1, see=see)
        assert half_way.wait(60)
        second = pool.submit(build_cache, watched, SIDE, 1, waiting=waits.set)
        assert waits.wait(60)
        assert open_cache(folders_of_images.folder(images).pretrain, SIDE) is None, "half built"
        go_on.set()
        assert same(first.result(60)[0], ShrunkSource(folders_of_images.folder(images).pretrain, SIDE))
        assert same(second.result(60)[0], ShrunkSource(folders_of_images.folder(images).pretrain, SIDE))
    assert sorted(reads) == list(range(7)), "decoded by the first alone"


def test_a_worker_maps_the_file_again(images: Path) -> None:
    built, _ = build_cache(folders_of_images.folder(images).pretrain, SIDE, 1)
    sent = pickle.dumps(built)
    assert len(sent) < 5000, "a path, not the pixels"
    assert same(pickle.loads(sent), built)


def test_images_without_a_time_of_change_are_not_cached(images: Path) -> None:
    array = ArraySource("array", torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    assert identity(array, SIDE) is None
    assert open_cache(array, SIDE) is None
    with pytest.raises(OSError, match="out of date"):
        build_cache(array, SIDE, 1)
    some = take(folders_of_images.folder(images).pretrain, torch.tensor([2, 1]))
    assert identity(some, SIDE) not in (None, identity(folders_of_images.folder(images).pretrain, SIDE))
