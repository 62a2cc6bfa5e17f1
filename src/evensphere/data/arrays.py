"""Images in numpy files. Nothing in them is ever unpickled.

Whoever holds arrays in a program of their own needs no file: see `in_memory`, and examples/own_data.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from evensphere.data.kinds import VALIDATION_NAMES
from evensphere.data.partition import split_by_class
from evensphere.data.source import ArraySource, Source, Splits
from evensphere.errors import InputError

Array = npt.NDArray[Any]
Layout = Literal["NHW", "NHWC", "NCHW"]

# a rule and not a measurement: images in memory are cropped on the device, others by workers, and the last bits differ
_IN_MEMORY = 2 * 2**30  # bytes
_MOST_CHANNELS = 16  # of images whose layout nobody told
_PARTS = {"train": ("train",), "validation": VALIDATION_NAMES, "test": ("test",)}
_IMAGES, _LABELS = ("images", "x", "data"), ("labels", "y", "label", "targets")


def array(
    path: str | Path,
    labels: str | Path | None = None,
    layout: Layout | None = None,
    memory_mapped: bool | None = None,
    seed: int = 0,
) -> Splits:
    """uint8 images of one size in a .npy or .npz file.

    .npy: all images. .npz: an array called images, x or data, perhaps one called labels, y, label or targets; or such
        arrays for each split, called train_images or x_train (train; validation, val, valid or dev, the first there
        is; test). With train and validation only, validation is the test set. Without splits, see `split_by_class`,
        drawn with `seed`.
    labels: a .npy file with a whole number or a text for each image. Classes are numbered in the order of these. The
        number -1 stands for no label, and leaves all labels of its part without use; but where -1 and 1 are the only
        numbers, they are two classes.
    layout: of the images: [N, H, W], [N, H, W, C] or [N, C, H, W]. None takes the shorter of the second and the last
        axis for the channels, the last if they are equal.
    memory_mapped: leave a .npy on the disk and read images as they are needed; None does so from 2 GiB on.

    Raises InputError for a file that holds something else, and for fewer than two images.
    """
    file = Path(path).expanduser()
    arrays = _load(file, memory_mapped)
    if labels is not None:
        if not {name.lower() for name in arrays} & set(_IMAGES):
            raise InputError(
                f"labels = {labels} was given, and {path} has arrays for each part; keep each part's labels beside its "
                "images, as train_labels and so on."
            )
        arrays |= {"labels": _load_npy(Path(labels).expanduser(), mapped=False)}
    parts = _by_part(str(path), arrays)
    rows = _without_gaps(
        {
            part: _label_row(str(path), found, images.shape[0] if images.ndim else 0)
            for part, (images, found) in parts.items()
        }
    )
    classes = _classes(rows["train"])
    sources = {
        part: _source(file, part if len(parts) > 1 else "", images, layout, rows[part], classes)
        for part, (images, _) in parts.items()
    }
    pretrain = sources["train"]
    if len(pretrain) < 2:
        raise InputError(f"{path} holds one image; training compares images and needs at least two.")
    if len(parts) == 1:
        return split_by_class(pretrain, seed)
    labelled = {part: source for part, source in sources.items() if source.labels() is not None}
    if "test" not in labelled and "validation" in labelled:
        labelled["test"] = labelled.pop("validation")
    if "train" not in labelled or "test" not in labelled:
        return Splits(pretrain)
    return Splits(pretrain, probe=pretrain, validation=labelled.get("validation"), test=labelled["test"])


def in_memory(name: str, images: Array, layout: Layout | None = None) -> ArraySource:
    """Images that a program holds: uint8 of one size, without labels. layout: as of `array`.

    Raises InputError for an array that is something else.
    """
    layout = layout or _layout(name, images.shape)
    _check(name, images, layout)
    return ArraySource(name, torch.from_numpy(np.ascontiguousarray(_channels_first(images, layout))))


class MappedSource(Source):
    """Images of one size that stay in a .npy file. A copy for another process opens the file anew."""

    def __init__(
        self,
        name: str,
        file: Path,
        layout: Layout,
        labels: Int64[Tensor, " n"] | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.name, self.file, self.layout = name, file, layout
        self.images = _channels_first(_load_npy(file, mapped=True), layout)
        self.channels = self.images.shape[1]
        self.image_size = (self.images.shape[2], self.images.shape[3])
        self.class_names = None if class_names is None else tuple(class_names)
        self._labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        return torch.from_numpy(self.images[i].copy())

    def location(self, i: int) -> str:
        return f"{self.name}[{range(len(self))[i]}]"

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self._labels

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "images"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        self.images = _channels_first(_load_npy(self.file, mapped=True), self.layout)


def _source(
    file: Path, part: str, images: Array, layout: Layout | None, labels: Array | None, classes: Array | None
) -> Source:
    name = f"{file.name}/{part}" if part else file.name
    layout = layout or _layout(name, images.shape)
    _check(name, images, layout)
    numbers, class_names = None, None
    if labels is not None and classes is not None:
        numbers, class_names = _numbers(name, labels, classes), [str(one) for one in classes]
    if isinstance(images, np.memmap):
        return MappedSource(name, file, layout, numbers, class_names)
    pixels = torch.from_numpy(np.ascontiguousarray(_channels_first(images, layout)))
    return ArraySource(name, pixels, numbers, class_names)


# --- what the axes are ------------------------------------------------------------------------------------------------


def _layout(name: str, shape: tuple[int, ...]) -> Layout:
    if len(shape) == 3:
        return "NHW"
    if len(shape) == 4:
        layout: Layout = "NCHW" if shape[1] < shape[3] else "NHWC"
        if min(shape[1], shape[3]) <= _MOST_CHANNELS:
            return layout
    raise InputError(
        f"The images of {name} have the shape {list(shape)}; give [N, H, W], [N, H, W, C] or [N, C, H, W], and say "
        "which with --set data.layout=NHWC or NCHW if there are many channels."
    )


def _check(name: str, images: Array, layout: Layout) -> None:
    if images.dtype != np.uint8:
        raise InputError(f"The images of {name} are {images.dtype}; give uint8, 0 to 255.")
    if images.ndim != len(layout) or 0 in images.shape:
        raise InputError(f"The images of {name} have the shape {list(images.shape)}, which is not {layout}.")


def _channels_first(images: Array, layout: Layout) -> Array:
    if layout == "NHW":
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" else images


# --- labels -----------------------------------------------------------------------------------------------------------


def _label_row(name: str, labels: Array | None, count: int) -> Array | None:
    """The labels as [N]; some keep them as [N, 1]."""
    if labels is None:
        return None
    row = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if row.ndim != 1 or row.dtype.kind not in "iuUb":
        raise InputError(
            f"The labels of {name} are {row.dtype} of shape {list(row.shape)}; give {count} whole numbers or texts."
        )
    if len(row) != count:
        raise InputError(f"{name} has {count} images and {len(row)} labels; give one label for each image.")
    return row


def _without_gaps(rows: Mapping[str, Array | None]) -> dict[str, Array | None]:
    """The labels of each part; None for a part with an image that has none, which the number -1 stands for, unless all
    parts together have -1 and 1 alone: a coding of two classes."""
    numbers = {number for row in rows.values() if row is not None for number in np.unique(row).tolist()}
    if -1 not in numbers or numbers == {-1, 1}:
        return dict(rows)
    return {
        part: None if row is not None and row.dtype.kind == "i" and (row == -1).any() else row
        for part, row in rows.items()
    }


def _classes(labels: Array | None) -> Array | None:
    """The different labels in their order; None where there are not two."""
    if labels is None:
        return None
    classes = np.unique(labels)
    return classes if len(classes) > 1 else None


def _numbers(name: str, labels: Array, classes: Array) -> Int64[Tensor, " n"]:
    numbers = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    if strangers := labels[classes[numbers] != labels].tolist():
        raise InputError(f"{name} has an image of class {strangers[0]}, but training knows no such class.")
    return torch.from_numpy(numbers.astype(np.int64))


# --- reading ----------------------------------------------------------------------------------------------------------


def _load(file: Path, mapped: bool | None) -> dict[str, Array]:
    """The arrays of a file by name; the one of a .npy is called images."""
    if file.suffix.lower() != ".npz":
        size = file.stat().st_size if file.is_file() else 0
        return {"images": _load_npy(file, size >= _IN_MEMORY if mapped is None else mapped)}
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy raise each their own
        raise _unreadable(file, error) from error


def _load_npy(file: Path, mapped: bool) -> Array:
    try:
        content: Array = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except Exception as error:
        raise _unreadable(file, error) from error
    if not isinstance(content, np.ndarray):
        raise InputError(f"{file} holds several arrays; give a .npy file, or call it .npz.")
    return content


def _unreadable(file: Path, error: Exception) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    return InputError(f"{file} cannot be read as a numpy file ({reason or type(error).__name__}).")


def _by_part(name: str, arrays: Mapping[str, Array]) -> dict[str, tuple[Array, Array | None]]:
    """{"train": (images, labels), ...}"""
    lower = {key.lower(): found for key, found in arrays.items()}

    def pick(kinds: Sequence[str], part: str) -> Array | None:
        wanted = [key for kind in kinds for key in ((f"{part}_{kind}", f"{kind}_{part}") if part else (kind,))]
        return next((lower[key] for key in wanted if key in lower), None)

    if (images := pick(_IMAGES, "")) is not None:
        return {"train": (images, pick(_LABELS, ""))}
    parts = {}
    for part, spellings in _PARTS.items():
        for spelling in spellings:
            if part not in parts and (images := pick(_IMAGES, spelling)) is not None:
                parts[part] = (images, pick(_LABELS, spelling))
    if "train" not in parts:
        raise InputError(
            f"{name} holds arrays called {', '.join(arrays) or 'nothing'}; call the images 'images' and, if there are "
            "labels, these 'labels'."
        )
    return parts
