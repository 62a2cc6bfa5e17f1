"""torchvision's own data sets: its classes find, download and list the files; decoding and subsetting are ours.

One table: a set's line says which class reads it, how its parts are called there, and what becomes of its samples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torchvision import datasets

from evensphere.data.encoded import FileSource
from evensphere.data.roots import downloading, roots_of
from evensphere.data.source import ArraySource, Source, Splits, take
from evensphere.data.subset import hold_out, long_tail_splits, stratified_split
from evensphere.errors import InputError

# What a torchvision object holds: images uint8 [N, C, H, W], or a path for each; and a label for each.
_Content = tuple[torch.Tensor | Sequence[str | Path], Sequence[int]]

_WHOLE = "whole"  # the one part of a set that nobody has divided


class _Set(NamedTuple):
    """A data set.

    reader: torchvision's class. content: what its object holds. names: the classes' names, in label order.
    parts: how torchvision is asked for "train", "test" and perhaps "validation", or for the whole of an undivided set.
    files: what lies below the root when the files of each part are there; checked before torchvision makes folders.
    groups: of a sample, what it is a take of; None where every image is a thing of its own.
    group_rule: see Splits.
    """

    name: str
    reader: Callable[..., Any]
    parts: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    content: Callable[[Any], _Content]
    names: Callable[[Any], Sequence[str]] = lambda read: list(read.classes)
    groups: Callable[[str], str] | None = None
    group_rule: str = "thirds"


def _source(published: _Set) -> Callable[..., Splits]:
    """The source of one line of the table."""

    def load(
        path: str | Path | None = None,
        imbalance: int | float | None = None,
        profile: str = "exp",
        largest: int | None = None,
        validation_per_class: int = 0,
        seed: int = 0,
        download: bool = False,
    ) -> Splits:
        """The data set as it is, or made long-tailed.

        path: the folder that holds the files as torchvision lays them out. None looks in $EVENSPHERE_DATA, then in
            ~/.cache/evensphere. download: fetch them there first.
        imbalance: None takes every training image. A number makes the training set long-tailed by `profile`, the
            largest class with `largest` images (see `long_tail_splits`); the seed decides which class is how rare.
        validation_per_class: training images of each class held out, for a set that comes without validation images.

        The parts are the official ones; a set without any is divided 60/20/20 by class, with `seed`.
        Raises InputError for missing or foreign files.
        """
        return _load(published, path, imbalance, profile, largest, validation_per_class, seed, download)

    return load


def _load(
    published: _Set,
    path: str | Path | None,
    imbalance: int | float | None,
    profile: str,
    largest: int | None,
    validation_per_class: int,
    seed: int,
    download: bool,
) -> Splits:
    if imbalance is None and largest is not None:
        raise InputError(f"largest = {largest} was given without an imbalance; give that too (1 is a balanced set).")
    parts = _parts(published, path, seed, download)
    train, validation, test = parts["train"], parts.get("validation"), parts["test"]
    if validation is not None and validation_per_class:
        raise InputError(
            f"{published.name} comes with validation images; leave validation_per_class at 0, which was given as "
            f"{validation_per_class}."
        )
    if imbalance is not None:
        splits = long_tail_splits(train, test, imbalance, profile, seed, validation_per_class, True, largest)
    elif validation_per_class:
        labels = train.labels()
        assert labels is not None
        held, rest = hold_out(labels, validation_per_class, seed, f"{train.name} validation", train.groups())
        kept = take(train, rest)
        splits = Splits(kept, kept, take(train, held), test)
    else:
        splits = Splits(train, train, None, test)
    validation = splits.validation if validation is None else validation
    return splits._replace(validation=validation, group_rule=published.group_rule)


def _parts(published: _Set, path: str | Path | None, seed: int, download: bool) -> dict[str, Source]:
    """{"train": ..., "test": ..., perhaps "validation": ...}"""
    root = _root(published, roots_of(path), download)
    read = {part: _read(published, root, part) for part in published.parts}
    if _WHOLE not in read:
        return read
    whole = read[_WHOLE]
    labels = whole.labels()
    assert labels is not None
    places = stratified_split(labels, (0.6, 0.2, 0.2), seed)
    return {part: take(whole, place) for part, place in zip(("train", "validation", "test"), places, strict=True)}


# Finding the files


def _root(published: _Set, roots: list[Path], download: bool) -> Path:
    """torchvision's root of the data set."""
    if (root := _found(published, roots)) is not None:
        return root
    if not download:
        raise InputError(
            f"{published.name} is not in {' or '.join(map(str, roots))}: there is no {_absent(published, roots[0])}; "
            "give the folder that holds it with --set data.path=PATH, or fetch it with --set data.download=true."
        )
    with downloading(published.name, roots[0], "where torchvision knows it"):
        for options in published.parts.values():
            published.reader(str(roots[0]), **options, download=True)
    return roots[0]


def _found(published: _Set, roots: list[Path]) -> Path | None:
    """The root that holds every part; its own folder may be given in its stead."""
    for root in roots:
        own = {Path(files).parts[0] for files in published.files.values()}
        for candidate in (root, *([root.parent] if root.name in own else [])):
            if _absent(published, candidate) is None:
                return candidate
    return None


def _absent(published: _Set, root: Path) -> str | None:
    return next((files for files in published.files.values() if not (root / files).exists()), None)


# Reading them


def _read(published: _Set, root: Path, part: str) -> Source:
    try:
        read = published.reader(str(root), **published.parts[part])
        images, labels = published.content(read)
        names = [str(name) for name in published.names(read)]
    except Exception as error:  # every class has its own ways to fail on files that are not its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"The {published.name} files in {root / published.files[part]} cannot be read ({reason}); get them again."
        ) from error
    if not labels or not 0 <= min(labels) <= max(labels) < len(names):
        raise InputError(
            f"The {published.name} files in {root / published.files[part]} are incomplete: {len(labels)} images and "
            f"{len(names)} classes; get them again."
        )
    name = published.name if part in ("train", _WHOLE) else f"{published.name} {part}"
    if isinstance(images, torch.Tensor):
        return ArraySource(name, images, torch.tensor(labels), names)
    return _files(name, root, images, labels, names, published.groups)


def _files(
    name: str,
    root: Path,
    images: Sequence[str | Path],
    labels: Sequence[int],
    names: Sequence[str],
    group_of: Callable[[str], str] | None,
) -> FileSource:
    """The files in the order of their paths' bytes: some classes list them as the file system does."""
    paths = [Path(os.path.relpath(image, root)).as_posix() for image in images]
    order = sorted(range(len(paths)), key=lambda i: os.fsencode(paths[i]))
    paths = [paths[i] for i in order]
    groups = None
    if group_of is not None:
        number: dict[str, int] = {}
        groups = torch.tensor([number.setdefault(group_of(path), len(number)) for path in paths])
    return FileSource(name, root, paths, 3, torch.tensor([labels[i] for i in order]), names, groups)


# What torchvision's objects hold


class FashionMNIST(datasets.FashionMNIST):  # type: ignore[misc]  # torchvision is untyped
    """torchvision's, which finds its files in a folder of the class's name, without the pickles of older versions."""

    def _check_legacy_exist(self) -> bool:
        return False


def _fashion_mnist(read: Any) -> _Content:
    return read.data[:, None], read.targets.tolist()


def _svhn(read: Any) -> _Content:
    return torch.from_numpy(np.ascontiguousarray(read.data)), read.labels.tolist()


def _samples(read: Any) -> _Content:
    pairs = read.samples if hasattr(read, "samples") else read._samples
    return [path for path, _ in pairs], [label for _, label in pairs]


def _image_files(read: Any) -> _Content:
    return read._image_files, read._labels


def _pets(read: Any) -> _Content:
    return read._images, read._labels


def _caltech101(read: Any) -> _Content:
    top = Path(read.root) / "101_ObjectCategories"
    return [
        top / read.categories[label] / f"image_{number:04d}.jpg"
        for label, number in zip(read.y, read.index, strict=True)
    ], read.y


def _caltech256(read: Any) -> _Content:
    top = Path(read.root) / "256_ObjectCategories"
    return [
        top / read.categories[label] / f"{label + 1:03d}_{number:04d}.jpg"
        for label, number in zip(read.y, read.index, strict=True)
    ], read.y


def _inaturalist(read: Any) -> _Content:
    top = Path(read.root)
    return [top / read.all_categories[label] / name for label, name in read.index], [label for label, _ in read.index]


def _track(path: str) -> str:
    """GTSRB's training images are frames of films, CLASS/TRACK_FRAME.ppm; its test images are alone, NUMBER.ppm."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('_')[0]}"


# The table

_TRAIN_TEST = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAIN_VAL_TEST = {**_TRAIN_TEST, "validation": {"split": "val"}}


def _everywhere(files: str, parts: Mapping[str, Any]) -> dict[str, str]:
    return dict.fromkeys(parts, files)


fashion_mnist = _source(
    _Set(
        name="fashion-mnist",
        reader=FashionMNIST,
        parts={"train": {"train": True}, "test": {"train": False}},
        files={"train": "FashionMNIST/raw/train-images-idx3-ubyte", "test": "FashionMNIST/raw/t10k-images-idx3-ubyte"},
        content=_fashion_mnist,
    )
)
svhn = _source(
    _Set(
        name="svhn",
        reader=datasets.SVHN,
        parts=_TRAIN_TEST,
        files={"train": "train_32x32.mat", "test": "test_32x32.mat"},
        content=_svhn,
        names=lambda read: [str(digit) for digit in range(10)],
    )
)
eurosat = _source(
    _Set(
        name="eurosat",
        reader=datasets.EuroSAT,
        parts={_WHOLE: {}},
        files={_WHOLE: "eurosat/2750"},
        content=_samples,
    )
)
food101 = _source(
    _Set(
        name="food101",
        reader=datasets.Food101,
        parts=_TRAIN_TEST,
        files=_everywhere("food-101/meta", _TRAIN_TEST),
        content=_image_files,
    )
)
flowers102 = _source(
    _Set(
        name="flowers102",
        reader=datasets.Flowers102,
        parts=_TRAIN_VAL_TEST,
        files=_everywhere("flowers-102/jpg", _TRAIN_VAL_TEST),
        content=_image_files,
        names=lambda read: getattr(read, "classes", [f"class {label}" for label in range(102)]),
    )
)
pets = _source(
    _Set(
        name="pets",
        reader=datasets.OxfordIIITPet,
        parts={"train": {"split": "trainval"}, "test": {"split": "test"}},
        files=_everywhere("oxford-iiit-pet/annotations", _TRAIN_TEST),
        content=_pets,
    )
)
dtd = _source(
    _Set(
        name="dtd",
        reader=datasets.DTD,
        parts=_TRAIN_VAL_TEST,
        files=_everywhere("dtd/dtd", _TRAIN_VAL_TEST),
        content=_image_files,
    )
)
caltech101 = _source(
    _Set(
        name="caltech101",
        reader=datasets.Caltech101,
        parts={_WHOLE: {}},
        files={_WHOLE: "caltech101/101_ObjectCategories"},
        content=_caltech101,
        names=lambda read: list(read.categories),
    )
)
caltech256 = _source(
    _Set(
        name="caltech256",
        reader=datasets.Caltech256,
        parts={_WHOLE: {}},
        files={_WHOLE: "caltech256/256_ObjectCategories"},
        content=_caltech256,
        names=lambda read: list(read.categories),
    )
)
gtsrb = _source(
    _Set(
        name="gtsrb",
        reader=datasets.GTSRB,
        parts=_TRAIN_TEST,
        files={"train": "gtsrb/GTSRB/Training", "test": "gtsrb/GTSRB/Final_Test/Images"},
        content=_samples,
        names=lambda read: [f"{label:05d}" for label in range(43)],
        groups=_track,
    )
)


def inaturalist(
    path: str | Path | None = None,
    version: Literal["2021", "2021_mini", "2019", "2018", "2017"] = "2021",
    imbalance: int | float | None = None,
    profile: str = "exp",
    largest: int | None = None,
    validation_per_class: int = 0,
    seed: int = 0,
    download: bool = False,
) -> Splits:
    """iNaturalist by torchvision's class, which needs the image files alone; options as for the other sets.

    version: 2021 (its validation images are the test set) and 2021_mini (50 training images of each species) are
        divided officially; of the others the one folder of training and validation images is divided 60/20/20.
    """
    folders = {
        "2021": {"train": "2021_train", "test": "2021_valid"},
        "2021_mini": {"train": "2021_train_mini", "test": "2021_valid"},
    }.get(version, {_WHOLE: version})
    published = _Set(
        name="inaturalist",
        reader=datasets.INaturalist,
        parts={part: {"version": folder} for part, folder in folders.items()},
        files=folders,
        content=_inaturalist,
        names=lambda read: list(read.all_categories),
        group_rule="shots",
    )
    return _load(published, path, imbalance, profile, largest, validation_per_class, seed, download)
