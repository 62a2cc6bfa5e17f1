"""From a listing of images to splits: what every kind of file-like collection has in common.

Folders, lists, tables and archives differ in how they are read. What they find out is the same: where each image is,
and perhaps its class, its group and the part it belongs to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere.data.encoded import Channels, as_text
from evensphere.data.kinds import VALIDATION_NAMES
from evensphere.data.partition import split_by_class
from evensphere.data.source import Source, Splits
from evensphere.errors import InputError

GroupBy = Literal["folder"] | None
Label = str | int | None


@dataclass(frozen=True)
class Listing:
    """What is known of a collection's images, one by one, in their order.

    name: what messages call the collection.
    locations: where each image is, as messages call it.
    labels: the class of each: its name, or its number, or None for an image without one.
    groups: images with the same one are takes of one thing; None for an image that stands alone.
    parts: "train", "probe", "validation" or "test" for each image, or None for one that is not used; None where nobody
        has divided the collection.
    class_names: of numbered classes; None calls them by their numbers.
    unlisted: what could not be listed, with the reason.
    """

    name: str
    locations: Sequence[str]
    labels: Sequence[Label] | None = None
    groups: Sequence[str | None] | None = None
    parts: Sequence[str | None] | None = None
    class_names: Mapping[int, str] | None = None
    unlisted: Sequence[tuple[str, str]] = ()


# makes the source of some of the listed images: (name, their numbers), and by keyword the other arguments of
# EncodedSource
MakeSource = Callable[..., Source]


def splits_of(
    listing: Listing,
    make: MakeSource,
    channels: Channels = "auto",
    bits: int = 8,
    seed: int = 0,
    group_rule: str = "thirds",
) -> Splits:
    """What a collection's images may be used for.

    Divided: pretrain is train; probe is itself or else train; validation and test are themselves. Without a test part,
        validation is the test set, as is usual for ImageNet. Without labels in train there is nothing to fit a probe
        on, and only pretrain is given. The other parts may only hold classes that train has.
    Not divided: see `split_by_class`; drawn with `seed`.

    The classes are those of train: names in the order of their bytes, or numbers in theirs. There are none unless every
    image of train has one and two or more occur.
    Raises InputError for fewer than two images to train on, and for a class that train does not know.
    """
    parts = _numbers_by_part(listing)
    train = parts.get("train", [])
    if len(train) < 2:
        raise InputError(_too_few(listing, len(train)))
    classes = _classes(listing, train)

    def source(part: str, channels: Channels) -> Source:
        name = listing.name if listing.parts is None else f"{listing.name} {part}"
        numbers = parts[part]
        known: dict[str, Any] = {"channels": channels, "bits": bits, "groups": _grouped(listing, numbers)}
        if classes:
            known["labels"] = _labels(listing, numbers, classes)
            known["class_names"] = [_class_name(listing, label) for label in classes]
        return make(name, numbers, **known)

    pretrain = source("train", channels)
    pretrain.unlisted = tuple(listing.unlisted)
    if listing.parts is None:
        return split_by_class(pretrain, seed)._replace(group_rule=group_rule)
    if not classes:
        return Splits(pretrain, group_rule=group_rule)
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    others = {part: source(part, pretrain.channels) for part in ("probe", "validation", "test") if part in parts}
    return Splits(
        pretrain,
        probe=others.get("probe", pretrain),
        validation=others.get("validation"),
        test=others.get("test"),
        group_rule=group_rule,
    )


def _numbers_by_part(listing: Listing) -> dict[str, list[int]]:
    if listing.parts is None:
        return {"train": list(range(len(listing.locations)))}
    numbers: dict[str, list[int]] = {}
    for i, part in enumerate(listing.parts):
        if part is not None:
            numbers.setdefault(part, []).append(i)
    return numbers


def _too_few(listing: Listing, count: int) -> str:
    where = listing.name if listing.parts is None else f"The training part of {listing.name}"
    found = f"{where} holds {'one image' if count else 'no images'}; training compares images and needs at least two"
    if not listing.unlisted:
        return f"{found}."
    location, reason = listing.unlisted[0]
    return f"{found}; {len(listing.unlisted)} could not be listed, the first being {location} ({reason})."


def _classes(listing: Listing, train: Sequence[int]) -> list[str | int]:
    """The classes in training, in the order of their numbers; none where some image has none."""
    if listing.labels is None:
        return []
    found = {listing.labels[i] for i in train}
    if None in found or len(found) < 2:
        return []
    return sorted((label for label in found if label is not None), key=_rank)


def _rank(label: str | int) -> int | bytes:
    return label if isinstance(label, int) else os.fsencode(label)


def _class_name(listing: Listing, label: str | int) -> str:
    if isinstance(label, str):
        return as_text(label)
    return (listing.class_names or {}).get(label, str(label))


def _labels(listing: Listing, numbers: Sequence[int], classes: Sequence[str | int]) -> Int64[Tensor, " n"]:
    assert listing.labels is not None
    place: dict[Label, int] = {label: c for c, label in enumerate(classes)}
    for i in numbers:
        label = listing.labels[i]
        if label not in place:
            name = (
                "in no class folder or has no label" if label is None else f"of class '{_class_name(listing, label)}'"
            )
            first, last = _class_name(listing, classes[0]), _class_name(listing, classes[-1])
            raise InputError(
                f"{listing.locations[i]} in {listing.name} is {name}, but training knows {len(classes)} classes "
                f"('{first}' ... '{last}'); the parts must have the same classes."
            )
    return torch.tensor([place[listing.labels[i]] for i in numbers], dtype=torch.int64)


def _grouped(listing: Listing, numbers: Sequence[int]) -> Int64[Tensor, " n"] | None:
    """A number for each group, in the order in which groups appear; an image without one is a group of its own."""
    if listing.groups is None:
        return None
    known: dict[str | int, int] = {}
    keys = (i if listing.groups[i] is None else listing.groups[i] for i in numbers)
    return torch.tensor([known.setdefault(key, len(known)) for key in keys if key is not None], dtype=torch.int64)


# --- what folders say -------------------------------------------------------------------------------------------------


def by_folders(
    name: str,
    locations: Sequence[str],
    inside: Sequence[str],
    groups: GroupBy = None,
    unlisted: Sequence[tuple[str, str]] = (),
    unlisted_inside: Sequence[str] = (),
) -> Listing:
    """The listing of images whose folders say what they are, in one of three shapes.

    train and test inside (and perhaps validation, val, valid or dev, the first there is, which without test is the test
        set): these are the parts. Class folders in them are the classes; images elsewhere are not used.
    class folders: every image lies in a sub-folder, which is its class.
    anything else: no labels.

    inside, unlisted_inside: posix paths below the collection's root, of each image and of what could not be listed (a
    train folder without permission is still there, and its test images must not become training images).
    groups: "folder" makes a group of the images that lie directly in one folder: a burst, a track, a patient.
    """
    split_names = _official_splits({_first_folder(path) for path in (*inside, *unlisted_inside)})
    below = [path.partition("/")[2] for path in inside] if split_names else inside
    return Listing(
        name=name,
        locations=locations,
        labels=[_first_folder(path) for path in below],
        groups=[path.rpartition("/")[0] for path in locations] if groups == "folder" else None,
        parts=[split_names.get(_first_folder(path)) for path in inside] if split_names else None,
        unlisted=unlisted,
    )


def _official_splits(present: set[str | None]) -> dict[str | None, str]:
    """{folder: its part}; empty if the folders are not divided so."""
    validation = next((name for name in VALIDATION_NAMES if name in present), None)
    if "train" not in present or not ("test" in present or validation):
        return {}
    named: dict[str | None, str] = {"train": "train", "test": "test"}
    return named if validation is None else named | {validation: "validation"}


def _first_folder(path: str) -> str | None:
    """The folder at the top of a path, None for an image that lies in none."""
    name, slash, _ = path.partition("/")
    return name if slash else None
