"""The look at every image before training: the unreadable ones are set aside, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import UInt8
from torch import Tensor

from evensphere.data.source import ArraySource, Source, UnreadableImage, take
from evensphere.errors import InputError

See = Callable[[int, UInt8[Tensor, "c h w"]], None]


def scan(
    source: Source, workers: int = 1, progress: Callable[[int, int], None] | None = None, see: See | None = None
) -> list[tuple[int, str]]:
    """Decode every image once; the numbers of those that cannot be, with the reason, in the source's order.

    workers: threads, at least one (Pillow decodes outside Python's lock). progress(done, total) is called now and then.
    see(i, image): called once for each image that can be read, in any order and from any of the threads.
    """
    if isinstance(source, ArraySource) and see is None:
        return []  # decoded already
    blocks = [range(start, min(start + 64, len(source))) for start in range(0, len(source), 64)]
    found: list[tuple[int, str]] = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for block, failures in zip(blocks, pool.map(lambda block: _failures(source, block, see), blocks), strict=True):
            found += failures
            if progress is not None:
                progress(block.stop, len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt should not wait for a million images
    return found


def _failures(source: Source, block: range, see: See | None) -> list[tuple[int, str]]:
    failures = []
    for i in block:
        try:
            image = source.read(i)
        except UnreadableImage as error:
            failures.append((i, str(error)))
        else:
            if see is not None:
                see(i, image)
    return failures


def readable(source: Source, unreadable: Sequence[tuple[int, str]]) -> Source:
    """`source` without the images that `scan` found unreadable.

    Raises InputError if fewer than two images are left, or if more than half are unreadable: that is more than dirt.
    """
    if not unreadable:
        return source
    first, reason = unreadable[0]
    found = f"{len(unreadable)} of the {len(source)} images of {source.name} cannot be read"
    if 2 * len(unreadable) > len(source) or len(source) - len(unreadable) < 2:
        raise InputError(f"{found}, the first being {source.location(first)} ({reason}); check the files.")
    kept = torch.ones(len(source), dtype=torch.bool)
    kept[[i for i, _ in unreadable]] = False
    return take(source, kept.nonzero()[:, 0])
