"""Where the images of a run are while it trains: decoded once and kept, or decoded whenever they are needed.

    memory   decoded once, shrunk to the resolution that training needs (see `packed.training_side`), in RAM
    device   the same, on the GPU: small images of one size; without a GPU the same as memory
    cache    the same, in a file on disk, which later runs on the same images find again
    files    decoded by workers whenever they are needed, at their full resolution

Memory, device and cache hold the same pixels. Those of "files" differ for images that are larger than that resolution,
so the choice is part of a run's recipe.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from evensphere.data.cache import cache_root
from evensphere.data.source import ArraySource, Source, UnreadableImage
from evensphere.ops.draw import permutation
from evensphere.values import as_bytes, free_memory

STORAGES = ("auto", "memory", "device", "cache", "files")

# what "auto" takes at most
_SHARE_OF_MEMORY = 1 / 4  # of what is free: the rest is for training, and for whoever else works on the machine
_SHARE_OF_DISK = 1 / 4
_LARGEST_CACHE = 50 * 2**30  # bytes written to somebody's disk without being asked to
_SHARE_OF_DEVICE = 1 / 8
# what an explicit choice takes at most; the rest would be swapping, or a full disk
_MOST = 0.9

_LOOKED_AT = 32  # images whose sizes are an estimate of all


class Room(NamedTuple):
    """Free bytes."""

    memory: int
    disk: int
    device: int | None = None  # None: no GPU


class Choice(NamedTuple):
    """storage: one of STORAGES but "auto". reason: for people, half a sentence."""

    storage: str
    reason: str


def choose_storage(wanted: str, needed: int, room: Room, cacheable: bool, one_tensor: bool, bits: int = 8) -> Choice:
    """What "auto" becomes, and what a wish becomes that cannot be fulfilled.

    5,000 photos (4 GB at 448 x 597 pixels) on a laptop: in memory if 16 GB are free, else a cache. A million (800 GB):
    files, unless somebody asks for a cache and has the disk.

    needed: bytes of all images at training resolution. cacheable: whether the source can tell when its images change.
    one_tensor: whether the images are in memory already, as one tensor. bits: of the images; what is kept has 8.
    """
    size = as_bytes(needed)
    on_device = room.device is not None and needed <= room.device * _SHARE_OF_DEVICE
    if wanted == "files":
        return Choice("files", "as asked")
    if bits != 8:
        return Choice("files", f"images of {bits} bits are not kept decoded")
    if wanted == "device" and not one_tensor and needed > room.memory * _MOST:  # where they are decoded first
        return Choice("files", f"{size} do not fit into {as_bytes(room.memory)} of free memory")
    if wanted == "device" and room.device is not None and needed > room.device * _MOST:
        return Choice("memory", f"{size} do not fit into {as_bytes(room.device)} of free memory on the GPU")
    if wanted == "device" or (wanted == "auto" and one_tensor and on_device):
        return Choice("device", f"{size}, on the GPU" if room.device is not None else f"{size}; there is no GPU")
    if one_tensor:
        return Choice("memory", f"{size}, decoded already")
    limit = _SHARE_OF_MEMORY if wanted == "auto" else _MOST
    if wanted in ("auto", "memory") and needed <= room.memory * limit:
        return Choice("memory", f"{size} of {as_bytes(room.memory)} free")
    if wanted == "memory":
        return Choice("files", f"{size} do not fit into {as_bytes(room.memory)} of free memory")
    if not cacheable:
        return Choice("files", f"{size} in memory would be too much, and nobody could tell when a cache is out of date")
    if wanted == "cache" and needed <= room.disk * _MOST:
        return Choice("cache", f"{size} of {as_bytes(room.disk)} free in {cache_root()}")
    if wanted == "auto" and needed <= min(room.disk * _SHARE_OF_DISK, _LARGEST_CACHE):
        return Choice("cache", f"{size} of {as_bytes(room.disk)} free in {cache_root()}; too much for memory")
    return Choice("files", f"{size} would be too much for {as_bytes(room.disk)} free in {cache_root()}")


def needed_bytes(source: Source, side: int) -> int:
    """About how many bytes all images take at a short side of `side`, from the sizes of some of them."""
    if isinstance(source, ArraySource):
        return source.images.numel()
    sizes = []
    for i in permutation(0, "image sizes", 0, len(source))[:_LOOKED_AT].tolist():
        try:
            height, width = source.read(i).shape[1:]
        except UnreadableImage:
            continue
        shrunk = min(1.0, side / min(height, width))
        sizes.append(height * width * shrunk**2)
    return int(sum(sizes) / max(1, len(sizes)) * len(source)) * source.channels


def free_room(device_free: int | None = None) -> Room:
    """What this machine has free, within the limits of a container. device_free: of the GPU, None without one."""
    root = cache_root()
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    return Room(int(free_memory()), shutil.disk_usage(there).free, device_free)
