"""A folder of image files, listed in the same order on every machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere.data.decode import EXTENSIONS
from evensphere.data.encoded import Channels, FileSource
from evensphere.data.source import Splits
from evensphere.data.subset import split_by_class
from evensphere.errors import InputError

_VALIDATION_NAMES = ("val", "validation")


def folder(path: str | Path, channels: Channels = "auto", seed: int = 0, bits: int = 8) -> Splits:
    """A folder of images, in one of three shapes.

    train and test inside (and perhaps val or validation): pretrain and probe are train, the others are themselves. With
        train and val only, val is the test set, as is usual for ImageNet. Without class folders in train there is
        nothing to fit a probe on, and only pretrain is given. The other splits may only hold classes that train has.
    class folders (every image lies in a sub-folder; two or more classes have three images or more): pretrain is
        everything; probe, validation and test are a stratified 60/20/20 split of the same images, drawn with `seed`.
        The encoder has then seen the test images' pixels, though never their labels.
    anything else: pretrain is everything, there is nothing to evaluate with.

    channels: 1 (grey), 3 (RGB), 4 (RGBA) or more; "auto" looks at some images. bits: 8, or 16 to keep the depth of
        images that have it (see `EncodedSource`). All splits are read like the training images.
    Sub-folders and files whose names begin with a dot are ignored.
    Raises InputError for a path that is missing or not a folder, and for fewer than two images to train on.
    """
    root = Path(path).expanduser()
    names = _official_splits(root)
    pretrain = FolderSource(root, names.get("train", ""), channels, bits=bits)
    if len(pretrain) < 2:
        raise InputError(f"{pretrain.name} holds one image; training compares images and needs at least two.")
    if "train" not in names:
        return split_by_class(pretrain, seed)
    if pretrain.class_names is None:
        return Splits(pretrain)
    parts = {
        part: FolderSource(root, name, pretrain.channels, pretrain.class_names, bits) for part, name in names.items()
    }
    return Splits(pretrain, probe=pretrain, validation=parts.get("validation"), test=parts["test"])


def labelled(path: str | Path, channels: Channels = "auto", seed: int = 0, bits: int = 8) -> Splits:
    """`folder`, for evaluation: raises InputError if the folder has no labels to evaluate with."""
    splits = folder(path, channels, seed, bits)
    if splits.probe is None or splits.test is None:
        raise InputError(
            f"{path} has no labels to evaluate with: put every image in a sub-folder named after its class, with three "
            "images or more in at least two classes, or such class folders inside train and test."
        )
    return splits


def _official_splits(root: Path) -> dict[str, str]:
    """{"train": its sub-folder, "test": ..., "validation": ...}; empty if the folder is not divided so."""
    present = {name for name in ("train", "test", *_VALIDATION_NAMES) if (root / name).is_dir()}
    validation = next((name for name in _VALIDATION_NAMES if name in present), None)
    if "train" not in present or not ("test" in present or validation):
        return {}
    if "test" not in present:
        return {"train": "train", "test": str(validation)}
    return {"train": "train", "test": "test"} | ({"validation": validation} if validation else {})


class FolderSource(FileSource):
    """The images below root/part. Their order is that of the bytes of their posix paths, whatever the file system says.

    class_names: None finds them: the names of part's sub-folders, sorted, if every image lies in one and there are two
        or more; otherwise there are no labels. If given, every image must lie in a sub-folder of one of these names.
    """

    def __init__(
        self,
        root: str | Path,
        part: str = "",
        channels: Channels = "auto",
        class_names: Sequence[str] | None = None,
        bits: int = 8,
    ) -> None:
        root = Path(root).expanduser()
        paths = _list_images(root / part, prefix=f"{part}/" if part else "")
        folders = [_first_folder(path, part) for path in paths]
        class_names = tuple(class_names) if class_names is not None else _class_names(folders)
        labels = None if class_names is None else _labels(root, paths, folders, class_names)
        super().__init__(str(root / part), root, paths, channels, labels, class_names, bits=bits)


def _labels(
    root: Path, paths: Sequence[str], folders: Sequence[str | None], class_names: tuple[str, ...]
) -> Int64[Tensor, " n"]:
    number = {name: c for c, name in enumerate(class_names)}
    for path, name in zip(paths, folders, strict=True):
        if name not in number:
            where = "in no class folder" if name is None else f"of class '{name}'"
            raise InputError(
                f"{root / path} is {where}, but training knows {len(number)} classes "
                f"('{class_names[0]}' ... '{class_names[-1]}'); the class folders' names must agree."
            )
    return torch.tensor([number[name] for name in folders if name is not None], dtype=torch.int64)


# Listing


def _list_images(top: Path, prefix: str) -> list[str]:
    """Posix paths relative to the source's root, sorted by their bytes."""
    if not top.exists():
        raise InputError(f"There is no folder {top}; check the path.")
    if not top.is_dir():
        raise InputError(f"{top} is a file; give the folder that holds the images.")
    paths = sorted(_walk(str(top), prefix, frozenset()), key=os.fsencode)
    if not paths:
        raise InputError(f"{top} holds no image files ({' '.join(EXTENSIONS)}); check the path.")
    return paths


def _walk(top: str, prefix: str, ancestors: frozenset[str]) -> Iterator[str]:
    """Links to folders are followed, except back to a folder that contains them."""
    here = os.path.realpath(top)
    if here in ancestors:
        return
    try:
        entries = list(os.scandir(top))
    except OSError as error:
        raise InputError(f"The folder {top} cannot be listed ({error.strerror}); fix it or move it away.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", ancestors | {here})
        elif entry.name.lower().endswith(EXTENSIONS):
            yield prefix + entry.name


def _first_folder(path: str, part: str) -> str | None:
    """The class folder an image lies in, None for an image that lies directly in `part`."""
    inside = path[len(part) + 1 :] if part else path
    name, slash, _ = inside.partition("/")
    return name if slash else None


def _class_names(folders: Iterable[str | None]) -> tuple[str, ...] | None:
    names = set(folders)
    if None in names or len(names) < 2:
        return None
    return tuple(sorted((name for name in names if name is not None), key=os.fsencode))
