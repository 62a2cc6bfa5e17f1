"""Folders of image files, listed in the same order on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from evensphere.data.decode import EXTENSIONS
from evensphere.data.encoded import Channels, FileSource, as_text
from evensphere.data.listing import GroupBy, by_folders, splits_of
from evensphere.data.source import Source, Splits
from evensphere.errors import InputError

_Pattern = tuple[str, ...]  # of a path's components; () fits everything


def folder(
    path: str | Path | Sequence[str],
    channels: Channels = "auto",
    seed: int = 0,
    groups: GroupBy = None,
    bits: int = 8,
) -> Splits:
    """A folder of images, or several that are one collection.

    path: folders, or patterns such as photos/**/*.jpg. A pattern's root is the folder above its first wildcard; a
        folder that fits stands for everything in it. Images of several roots are told apart by their roots' names.

    What the folders say (see `listing.by_folders`):
    train and test inside (and perhaps validation, val, valid or dev, the first there is): pretrain and probe are train,
        the others are themselves. With train and validation only, validation is the test set, as is usual for ImageNet.
        Without class folders in train there is nothing to fit a probe on, and only pretrain is given. The other splits
        may only hold classes that train has.
    class folders (every image lies in a sub-folder; two or more classes have three images or more): pretrain is
        everything; probe, validation and test are a stratified 60/20/20 split of the same images, drawn with `seed`.
        The encoder has then seen the test images' pixels, though never their labels.
    anything else: pretrain is everything, there is nothing to evaluate with.

    channels: 1 (grey), 3 (RGB), 4 (RGBA) or more; "auto" looks at some images. bits: 8, or 16 to keep the depth of
        images that have it (see `EncodedSource`). All splits are read like the training images.
    groups: "folder" takes the images that lie directly in one
        folder for takes of one thing. Sub-folders and files whose names begin with a dot are ignored; sub-folders that
        cannot be listed are passed over, and named in `unlisted`.
    Raises InputError for a path that is missing or not a folder, and for fewer than two images to train on.
    """
    roots = _roots([path] if isinstance(path, str | Path) else path)
    if not roots:
        raise InputError("An empty list of folders was given; give one folder at least.")
    found = _find_images(roots)
    listing = by_folders(
        " and ".join(map(str, roots)),
        [image.location for image in found.images],
        [image.inside for image in found.images],
        groups,
        [(image.location, reason) for image, reason in found.unlisted],
        [image.inside for image, _ in found.unlisted],
    )
    _check_that_all_are_used(roots, found.images, listing.parts)

    def make(name: str, numbers: Sequence[int], **known: Any) -> Source:
        chosen = [found.images[i] for i in numbers]
        if len(roots) == 1:
            return FileSource(name, next(iter(roots)), [image.inside for image in chosen], **known)
        files = [str(image.root / image.inside) for image in chosen]
        return FileSource(name, "", files, locations=[image.location for image in chosen], **known)

    return splits_of(listing, make, channels, bits, seed)


class _Place(NamedTuple):
    """Where something lies: below which root, what its location begins with there, and its posix path below it."""

    root: Path
    prefix: str
    inside: str

    @property
    def location(self) -> str:
        return as_text(self.prefix + self.inside)


class _Found(NamedTuple):
    images: list[_Place]
    unlisted: list[tuple[_Place, str]]


def _check_that_all_are_used(roots: Mapping[Path, object], images: Sequence[_Place], parts: Any) -> None:
    """One of several roots that is not divided, when others are, would be left out without a word."""
    if parts is None:
        return
    used = {image.root for image, part in zip(images, parts, strict=True) if part is not None}
    for root in roots:
        if root not in used:
            raise InputError(
                f"{next(iter(used))} is divided into train and test and {root} is not; give them in one shape."
            )


# --- the roots --------------------------------------------------------------------------------------------------------


def _roots(paths: Sequence[str | Path]) -> dict[Path, list[_Pattern]]:
    """{root: the patterns that its images are to fit, any of them}

    Raises InputError for a root that is missing, not a folder, or inside another one.
    """
    roots: dict[Path, list[_Pattern]] = {}
    for path in paths:
        root, pattern = _without_pattern(Path(path).expanduser())
        if not root.exists():
            raise InputError(f"There is no folder {root}; check the path.")
        if not root.is_dir():
            raise InputError(f"{root} is a file; give the folder that holds the images.")
        roots.setdefault(root, []).append(pattern)
    for one, other in combinations(roots, 2):
        inner, outer = sorted((one, other), key=lambda root: -len(root.resolve().parts))
        if inner.resolve().is_relative_to(outer.resolve()):
            raise InputError(f"{inner} lies in {outer}, so its images would count twice; give one of them.")
    return roots


def _without_pattern(path: Path) -> tuple[Path, _Pattern]:
    """(root, pattern)"""
    if path.exists():
        return path, ()
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if set("*?[") & set(part)), len(parts))
    return Path(*parts[:first]), parts[first:]


def _prefixes(roots: Sequence[Path]) -> list[str]:
    """What tells the images of several roots apart: the roots' names, with as many of the folders above as it takes."""
    if len(roots) == 1:
        return [""]
    parts = [root.resolve().parts[1:] for root in roots]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return [f"{name}/" for name in names]


# --- listing ----------------------------------------------------------------------------------------------------------


def _find_images(roots: Mapping[Path, list[_Pattern]]) -> _Found:
    """All images, sorted by the bytes of their locations, and the folders and files that could not be listed.

    Raises InputError where a root holds none.
    """
    images: list[_Place] = []
    unlisted: list[tuple[_Place, str]] = []
    for (root, patterns), prefix in zip(roots.items(), _prefixes(list(roots)), strict=True):
        before = len(images)
        for inside, reason in _walk(str(root)):
            place = _Place(root, prefix, inside)
            if reason is not None and not inside:
                raise InputError(f"The folder {root} cannot be listed ({reason}); fix it or move it away.")
            if reason is not None:
                unlisted.append((place, reason))
            elif any(_fits(inside.split("/"), pattern) for pattern in patterns):
                images.append(place)
        if len(images) == before:
            raise InputError(_no_images(root, patterns, unlisted))
    images.sort(key=lambda place: os.fsencode(place.prefix + place.inside))
    return _Found(images, unlisted)


def _no_images(root: Path, patterns: Sequence[_Pattern], unlisted: Sequence[tuple[_Place, str]]) -> str:
    wanted = " or ".join(str(root.joinpath(*pattern)) for pattern in patterns if pattern)
    what = f"No image file ({' '.join(EXTENSIONS)}) fits {wanted}" if wanted else ""
    what = what or f"{root} holds no image files ({' '.join(EXTENSIONS)})"
    if not unlisted:
        return f"{what}; check the path."
    place, reason = unlisted[0]
    return f"{what}; {len(unlisted)} of its folders cannot be listed, the first being {place.location} ({reason})."


def _walk(root: str) -> Iterator[tuple[str, str | None]]:
    """(path below root, None) of every image, (path, reason) of what cannot be listed; "" is the root itself.

    Links to folders are followed, except back to a folder that contains them.
    """
    folders: list[tuple[str, frozenset[str]]] = [("", frozenset())]
    while folders:
        inside, ancestors = folders.pop()
        top = os.path.join(root, inside)
        here = os.path.realpath(top)
        if here in ancestors:
            continue
        try:
            entries = list(os.scandir(top))
        except OSError as error:
            yield inside, error.strerror or str(error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path, kind = inside + entry.name, _kind(entry)
            if kind == "folder":
                folders.append((f"{path}/", ancestors | {here}))
            elif entry.name.lower().endswith(EXTENSIONS):
                yield path, "neither a file nor a folder" if kind == "device" else None


def _kind(entry: os.DirEntry[str]) -> str:
    """A link that leads nowhere is a file, which will turn out to be unreadable. Reading a device or a pipe would never
    end."""
    try:
        if entry.is_dir():
            return "folder"
        return "file" if entry.is_file() or not os.path.exists(entry.path) else "device"
    except OSError:  # a link to itself
        return "file"


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, or a folder that it lies in, fits a pattern. ** stands for any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return _fits(path, pattern[1:]) or (bool(path) and _fits(path[1:], pattern))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _fits(path[1:], pattern[1:])
