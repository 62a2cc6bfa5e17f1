"""Decoded images on disk, for sets that do not fit into memory: decoded by the first run, mapped by all that follow.

    CACHE/IDENTITY/pixels.u8       the images end to end, [H, W, C] of uint8
    CACHE/IDENTITY/index.npy       for each image its place in it, height and width
    CACHE/IDENTITY/manifest.json   what it is of, and which images cannot be read; written last, so a cache that was
                                   left half built has none and is built again

CACHE is $EVENSPHERE_CACHE, by default ~/.cache/evensphere/cache. IDENTITY is a hash of every image's location, size and
time of change and of the resolution, so that a changed file makes another cache; old ones may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from evensphere.data.packed import Found, MappedFile, PackedSource, Packer, Progress
from evensphere.data.scan import See, scan
from evensphere.data.source import Source
from evensphere.disk import atomic_file, atomic_write, clear_parts, make_folder

VERSION = 1


def cache_root() -> Path:
    """Where all caches are."""
    given = os.environ.get("EVENSPHERE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "evensphere" / "cache"


def identity(source: Source, side: int) -> str | None:
    """What a cache of these images is called; None for a source that cannot tell when its images change."""
    digest = hashlib.blake2b(f"{VERSION}/{side}/{source.channels}/{len(source)}".encode(), digest_size=16)
    for i in range(len(source)):
        if (stamp := source.stamp(i)) is None:
            return None
        digest.update(f"{stamp}\0{source.location(i)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def open_cache(source: Source, side: int) -> Found | None:
    """The cache of these images, if it is there and whole."""
    name = identity(source, side)
    return None if name is None else _open(cache_root() / name, source, side)


def build_cache(
    source: Source,
    side: int,
    workers: int,
    progress: Progress | None = None,
    see: See | None = None,
    waiting: Callable[[], None] | None = None,
) -> Found:
    """The cache of these images, built unless it is there. Of two that build it, the second waits and uses it.

    waiting: called if another process is building it. Raises OSError where it cannot be written, or could not be told
    when it is out of date.
    """
    name = identity(source, side)
    if name is None:
        raise OSError("nobody could tell when it is out of date")
    folder = cache_root() / name
    make_folder(folder.parent)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        found = _open(folder, source, side)
        if found is None:
            _build(folder, source, side, workers, progress, see)
            found = _open(folder, source, side)
            assert found is not None
        elif see is not None:
            scan(found[0], workers, progress, see)
        return found
    finally:
        lock.release()


def _build(folder: Path, source: Source, side: int, workers: int, progress: Progress | None, see: See | None) -> None:
    make_folder(folder)  # not before the lock is ours: who fails to build takes the folder away
    try:
        clear_parts(folder)
        with atomic_file(folder / "pixels.u8") as file:
            packer = Packer(len(source), side, lambda pixels: file.write(pixels.data), see)
            unreadable = scan(source, workers, progress, packer.see)
        index = io.BytesIO()
        np.save(index, packer.index)
        atomic_write(folder / "index.npy", index.getvalue())
        manifest = {
            "version": VERSION,
            "identity": folder.name,
            "source": source.name,
            "images": len(source),
            "channels": source.channels,
            "short_side": side,
            "bytes": packer.size,
            "unreadable": unreadable,
        }
        atomic_write(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
    except BaseException:  # an interrupt too: what is half built is of no use to anyone
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _open(folder: Path, source: Source, side: int) -> Found | None:
    """None where the cache is not there, or not whole."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        index = np.load(folder / "index.npy", allow_pickle=False)
        if (manifest["identity"], len(index)) != (folder.name, len(source)):
            return None
        if (folder / "pixels.u8").stat().st_size != manifest["bytes"]:
            return None
        pixels = MappedFile(folder / "pixels.u8")
        unreadable = [(int(i), str(reason)) for i, reason in manifest["unreadable"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return PackedSource(source, side, pixels, index), unreadable
