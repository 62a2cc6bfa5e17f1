"""Lists of image files: a path in each line, perhaps with the number of its class (`train/n0144/x.JPEG 0`).

This is how ImageNet-LT and its kin are published, and what `evensphere split` writes. A name that cannot stand in one
line is spelled as `encoded.as_text` spells it. JSON like RUN/images.json is a list too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evensphere.data.encoded import Channels, FileSource, as_path, as_text
from evensphere.data.listing import Listing, splits_of
from evensphere.data.source import Source, Splits
from evensphere.errors import InputError
from evensphere.untrusted import IMAGES, parse_json, read_bytes


def listed(
    path: str | Path,
    root: str | Path | None = None,
    classes: str | Path | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    probe: str | Path | None = None,
    channels: Channels = "auto",
    seed: int = 0,
    bits: int = 8,
) -> Splits:
    """The images that a list names.

    path: the list of training images. Where no other list is given, they are all images, and split 60/20/20 by class
        for evaluation if they have labels, drawn with `seed`.
    validation, test, probe: lists of images for evaluation, all with labels; probe is what probes are fitted on (None:
        the training images). With validation alone, that is the test set.
    root: what the paths are relative to; None takes the folder of the list.
    classes: a file with a class name in each line, the name of class 0 first. None takes the names of the images'
        folders, if each class has one of its own, else the numbers.
    channels: 1 (grey), 3 (RGB), 4 (RGBA) or more; "auto" looks at some images. bits: 8, or 16 to keep the depth of
        images that have it (see `EncodedSource`).

    The last field of a line is its label if it is a whole number; paths may hold spaces. Empty lines and lines that
    begin with "# " are passed over. Images are in the order of their paths' bytes, classes in that of their numbers.
    Raises InputError for lists that cannot be read, name an image twice, or have labels in some lines only.
    """
    given = {"train": path, "probe": probe, "validation": validation, "test": test}
    lists = {part: read_list(file) for part, file in given.items() if file is not None}
    root = Path(path).expanduser().parent if root is None else Path(root).expanduser()
    names = None if classes is None else _read_names(Path(classes).expanduser())
    return splits_of_lists(str(path), lists, root, names, channels, bits, seed)


class ListFile(NamedTuple):
    """A list that was read: its name, the images' paths, and their labels, None where there are none."""

    name: str
    paths: list[str]
    labels: list[int] | None


def splits_of_lists(
    name: str,
    lists: Mapping[str, ListFile],
    root: Path,
    names: Sequence[str] | None = None,
    channels: Channels = "auto",
    bits: int = 8,
    seed: int = 0,
    group_rule: str = "thirds",
) -> Splits:
    """The splits of lists for "train", and perhaps "probe", "validation" and "test"; names: of the classes."""
    unlabelled = next((file.name for file in lists.values() if file.labels is None), None)
    if len(lists) > 1 and unlabelled is not None:
        raise InputError(
            f"{unlabelled} has no labels, and lists for evaluation need them all; write 'PATH LABEL' lines."
        )
    rows = [row for part, file in lists.items() for row in _rows(part, file)]
    paths = [path for _, path, _ in rows]
    listing = Listing(
        name=name,
        locations=[as_text(path) for path in paths],
        labels=None if unlabelled is not None else [label for _, _, label in rows],
        parts=[part for part, _, _ in rows] if len(lists) > 1 else None,
        class_names=None if unlabelled is not None else _class_names(lists, names),
    )

    def make(name: str, numbers: Sequence[int], **known: Any) -> Source:
        return FileSource(name, root, [paths[i] for i in numbers], **known)

    return splits_of(listing, make, channels, bits, seed, group_rule)


def _rows(part: str, file: ListFile) -> list[tuple[str, str, int | None]]:
    """(part, path, label) of each image, in the order of the paths' bytes."""
    labels: Sequence[int | None] = [None] * len(file.paths) if file.labels is None else file.labels
    rows = [(part, path, label) for path, label in zip(file.paths, labels, strict=True)]
    return sorted(rows, key=lambda row: os.fsencode(row[1]))


# --- class names ------------------------------------------------------------------------------------------------------


def _class_names(lists: Mapping[str, ListFile], names: Sequence[str] | None) -> dict[int, str] | None:
    """The names of the numbered classes, None to call them by their numbers."""
    if names is None:
        return _folders_of_classes(lists["train"])
    for file in lists.values():
        if (largest := max(file.labels or [0])) >= len(names):
            raise InputError(
                f"{file.name} has a class {largest}, and the file of class names has {len(names)} lines, for 0 to "
                f"{len(names) - 1}; give a name for every class."
            )
    return dict(enumerate(names))


def _folders_of_classes(train: ListFile) -> dict[int, str] | None:
    """The name of the folder that holds a class's images, if it holds all of them and no others."""
    folders: dict[int, str] = {}
    for path, label in zip(train.paths, train.labels or [], strict=True):
        name = path.split("/")[-2] if "/" in path else ""
        if folders.setdefault(label, name) != name:
            return None
    return (
        {label: as_text(name) for label, name in folders.items()}
        if len(set(folders.values())) == len(folders)
        else None
    )


def _read_names(file: Path) -> list[str]:
    names = [line.strip() for line in _text(file).splitlines()]
    while names and not names[-1]:
        names.pop()
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"{file} has an empty line or a name twice; give a class name in each line, each once.")
    return names


# --- reading a list ---------------------------------------------------------------------------------------------------

_LABELLED = re.compile(r"(.*\S)[ \t]+([0-9]{1,18})")


def read_list(file: str | Path) -> ListFile:
    """A list of images. Raises InputError for one that cannot be read, names an image twice, or has labels in some of
    its lines only."""
    lines = _lines(Path(file).expanduser())
    found = [(number, _LABELLED.fullmatch(line)) for number, line in lines]
    without = [number for number, match in found if match is None]
    if not without:
        texts, labels = [match[1] for _, match in found if match], [int(match[2]) for _, match in found if match]
    elif len(without) == len(lines):
        texts, labels = [line for _, line in lines], None
    else:
        raise InputError(
            f"Line {without[0]} of {file} has no label and other lines have one; end every line with a whole number, "
            "or none."
        )
    paths = [as_path(text) for text in texts]
    first: dict[str, int] = {}
    for (number, _), path in zip(lines, paths, strict=True):
        if first.setdefault(path, number) != number:
            raise InputError(
                f"{as_text(path)} is listed more than once, in lines {first[path]} and {number} of {file}; list each "
                "image once."
            )
    return ListFile(str(file), paths, labels if lines else None)


def _lines(file: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of every line that names an image."""
    text = _text(file)
    if file.suffix.lower() == ".json":
        return list(enumerate(_images_of_json(file, text), start=1))
    lines = ((number, line.rstrip(" \t\r")) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in lines if line and line != "#" and not line.startswith("# ")]


def _images_of_json(file: Path, text: str) -> list[str]:
    try:
        images = parse_json(text)["images"]
        if not isinstance(images, list):
            raise TypeError("its images are no list")
        for image in images:
            os.fsencode(image)  # refuses what is no text
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'The list of images {file} cannot be read ({error}); give {{"images": [PATH, ...]}}, or a text file with '
            "a path in each line."
        ) from error
    return images


def _text(file: Path) -> str:
    try:
        return read_bytes(file, IMAGES).decode("utf-8-sig", "surrogateescape")  # names need not be valid text
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"The list {file} cannot be read ({reason}); give a text file with one image in each line."
        ) from error
