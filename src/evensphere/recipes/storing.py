"""The one look at every image before a run: which can be read, and where their pixels are kept while it trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from rich.console import Console

from evensphere.data.augment import Views
from evensphere.data.cache import build_cache, open_cache
from evensphere.data.packed import Found, Progress, ShrunkSource, as_array, pack_in_memory, training_side
from evensphere.data.scan import See, readable, scan
from evensphere.data.source import ArraySource, Source, Subset, take
from evensphere.data.storage import choose_storage, free_room, needed_bytes
from evensphere.data.stream import Stream
from evensphere.errors import InputError
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, with_view_size


class Images(NamedTuple):
    """The images of a run.

    source: those that can be read, as they are. pixels: the same images, numbered alike, as the loader reads them.
    skipped: (location, reason) of those that cannot be read.
    """

    source: Source
    pixels: Source
    skipped: list[tuple[str, str]]


def look_at(
    recipe: Recipe, source: Source, device: torch.device, console: Console, strict: bool = False, see: See | None = None
) -> tuple[Recipe, Images]:
    """Decode every image once; the recipe with its view size and storage decided, and the images of the run.

    strict: whether an unreadable image is an InputError. see: sees every image too (see `scan`).
    """
    recipe, asked = with_view_size(recipe, source), recipe.storage
    if isinstance(source, Stream):  # which is read once an epoch, and no sooner
        return _stored(recipe, "files", asked), Images(source, source, list(source.skipped.items()))
    choice = choose_storage(
        recipe.storage,
        needed_bytes(source, _side(recipe)),
        free_room(_free_memory(device)),
        cacheable=source.stamp(0) is not None,
        one_tensor=isinstance(source, ArraySource),
        bits=source.bits,
    )
    if not isinstance(source, ArraySource):  # which leaves nothing to decide
        console.print(f"Storage: {choice.storage} ({choice.reason}).", soft_wrap=True)
    recipe = replace(recipe, storage=choice.storage)
    try:
        pixels, unreadable = _keep(recipe, source, console, see)
    except OSError as error:
        if recipe.storage != "cache":
            raise
        recipe = replace(recipe, storage="files")
        console.print(
            f"The cache cannot be written ({error}); the files are decoded each time instead.", soft_wrap=True
        )
        pixels, unreadable = _keep(recipe, source, console, see)
    skipped = [*source.unlisted, *((source.location(i), reason) for i, reason in unreadable)]
    if strict and skipped:
        raise InputError(_refusal(source, skipped))
    images = Images(readable(source, unreadable), readable(pixels, unreadable), skipped)
    if unreadable:
        console.print(f"{len(unreadable)} of {len(source):,} images cannot be read; they are listed in skipped.csv.")
    recipe = _stored(recipe, recipe.storage, asked)
    return recipe, images._replace(pixels=_ready(recipe, images.pixels, device))


def _stored(recipe: Recipe, storage: str, asked: str) -> Recipe:
    """With where its images are kept; and with what was asked for, if that could not be had, so that the same command
    may go on with the run."""
    elsewhere = {} if asked in ("auto", storage) else {"storage_asked": asked}
    return replace(recipe, storage=storage, resolved=recipe.resolved | elsewhere)


def pixels_again(recipe: Recipe, source: Source, device: torch.device, console: Console) -> Source:
    """What the loader of a run that was begun reads: the same pixels as then, of the images it was begun with."""
    if isinstance(source, Stream) or recipe.storage == "files":
        return source  # the loader passes over what has become unreadable
    try:
        pixels, unreadable = _keep(recipe, source, console)
    except OSError:  # the cache is gone and cannot be made again
        pixels, unreadable = ShrunkSource(source, _side(recipe)), []
    if unreadable:
        i, reason = unreadable[0]
        raise InputError(
            f"{len(unreadable)} of the images this run was begun with can no longer be read, the first being "
            f"{source.location(i)} ({reason}); put them back to resume."
        )
    return _ready(recipe, pixels, device)


def _refusal(source: Source, skipped: list[tuple[str, str]]) -> str:
    """--strict: one unreadable image is one too many. So is a folder that cannot be listed."""
    location, reason = skipped[0]
    return (
        f"{len(skipped)} of the {len(source):,} images of {source.name} cannot be read, the first being {location} "
        f"({reason}); mend or remove them, or leave out --strict to train without them."
    )


def _side(recipe: Recipe) -> int:
    views: Views = build("views", recipe.views, seed=recipe.seed)
    return training_side(views.size)


def _keep(recipe: Recipe, source: Source, console: Console, see: See | None = None) -> Found:
    """The images where the recipe says, numbered like the source's, and those that cannot be read."""
    if isinstance(source, ArraySource):
        return source, [] if see is None else scan(source, 1, None, see)
    workers = recipe.workers or os.cpu_count() or 1
    with _progress(len(source), console) as progress:
        if recipe.storage == "files":
            return source, scan(source, workers, progress, see)
        if recipe.storage != "cache":
            return pack_in_memory(source, _side(recipe), workers, progress, see)
        if isinstance(source, Subset) and (found := _from_cache_of_all(source, _side(recipe))):
            if see is not None:
                scan(found[0], workers, progress, see)
            return found
        waiting = lambda: console.print("Another process is decoding the same images; waiting for it.")  # noqa: E731
        return build_cache(source, _side(recipe), workers, progress, see, waiting)


def _from_cache_of_all(source: Subset, side: int) -> Found | None:
    """Some images from the cache of the collection they are of."""
    found = open_cache(source.source, side)
    if found is None:
        return None
    pixels, unreadable = found
    reasons = dict(unreadable)
    numbers = enumerate(source.indices.tolist())
    return take(pixels, source.indices), [(place, reasons[i]) for place, i in numbers if i in reasons]


@contextmanager
def _progress(count: int, console: Console) -> Iterator[Progress]:
    with console.status(f"Reading {count:,} images once") as status:
        yield lambda done, total: status.update(f"Reading all images once: {done:,} of {total:,}")


def _ready(recipe: Recipe, pixels: Source, device: torch.device) -> Source:
    """As one tensor, where that is how they are cropped; on the GPU, where the recipe says so."""
    if recipe.storage in ("memory", "device") and not isinstance(pixels, ArraySource):
        pixels = as_array(pixels) or pixels
    if recipe.storage == "device" and isinstance(pixels, ArraySource):
        return ArraySource(pixels.name, pixels.images.to(device), numbers=pixels.numbers)
    return pixels


def _free_memory(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
