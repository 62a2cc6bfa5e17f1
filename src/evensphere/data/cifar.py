"""CIFAR-10 and CIFAR-100 read bit for bit from their published files, and made long-tailed (CIFAR-LT).

Two layouts are published. The binary one is plain bytes and safe to read from anyone. The python one is a pickle, and
unpickling runs whatever code the file holds: it is opened only if it is, by its md5, the very file that was published.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from evensphere.data.source import ArraySource, Splits
from evensphere.data.subset import long_tail_splits
from evensphere.errors import InputError

_PIXELS = 3 * 32 * 32


class _Published(NamedTuple):
    """How one of the two sets is stored. label_bytes: 1, or 2 where a coarse label precedes the fine one."""

    name: str
    num_classes: int
    binary_folder: str
    train_files: tuple[str, ...]
    test_file: str
    names_file: str
    label_bytes: int
    torchvision_name: str
    python_label_key: str


_CIFAR10 = _Published(
    name="cifar10",
    num_classes=10,
    binary_folder="cifar-10-batches-bin",
    train_files=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test_file="test_batch.bin",
    names_file="batches.meta.txt",
    label_bytes=1,
    torchvision_name="CIFAR10",
    python_label_key="labels",
)
_CIFAR100 = _Published(
    name="cifar100",
    num_classes=100,
    binary_folder="cifar-100-binary",
    train_files=("train.bin",),
    test_file="test.bin",
    names_file="fine_label_names.txt",
    label_bytes=2,
    torchvision_name="CIFAR100",
    python_label_key="fine_labels",
)


def cifar10(
    path: str | Path | None = None,
    imbalance: int | float = 100,
    profile: str = "exp",
    seed: int = 0,
    validation_per_class: int = 500,
    download: bool = False,
    largest: int | None = None,
) -> Splits:
    """CIFAR-10-LT: as `cifar100`, with 5,000 training images of each class, of which 500 are held out by default.

    As in the GH authors' code, the order of the classes is shuffled before the counts are dealt out.
    """
    train, test = _load(_CIFAR10, path, download)
    return long_tail_splits(train, test, imbalance, profile, seed, validation_per_class, True, largest)


def cifar100(
    path: str | Path | None = None,
    imbalance: int | float = 100,
    profile: str = "exp",
    seed: int = 0,
    validation_per_class: int = 50,
    download: bool = False,
    largest: int | None = None,
) -> Splits:
    """CIFAR-100-LT (Cao et al., NeurIPS 2019). Images are uint8 [3, 32, 32], in the published order.

    path: the folder that holds cifar-100-binary or cifar-100-python, or that folder itself. None looks in
        $EVENSPHERE_DATA, then in ~/.cache/evensphere.
    imbalance, profile: see `long_tail_counts`; or a published profile, "cifar100-lt-split1" to 5 (see
        `published_profiles`).
    seed: chooses the long-tailed subset (numpy's legacy RandomState) and the validation images.
    validation_per_class: images of each class held out of the 500. 50 gives a largest class of 450, the counts of the
        published SDCLR splits (9,754 images at IR 100); 0 gives no validation set and the GH authors' own subset
        (10,847 images).
    download: fetch the python layout (169 MB) into `path`, or where None looks first, if it is not there yet.
    largest: images of the largest class, fewer than there are: 98 with imbalance 1 is a balanced set about as large as
        the subset at IR 100.

    probe is every training image that is not held out. Raises InputError for missing, truncated or foreign files.
    """
    train, test = _load(_CIFAR100, path, download)
    return long_tail_splits(train, test, imbalance, profile, seed, validation_per_class, largest=largest)


# Images, uint8 [N, 3072] (the red, green and blue planes, row by row), and their labels, int64 [N].
_Records = tuple[NDArray[np.uint8], NDArray[np.int64]]


class _Loaded(NamedTuple):
    train: _Records
    test: _Records
    class_names: list[str] | None


def _load(published: _Published, path: str | Path | None, download: bool) -> tuple[ArraySource, ArraySource]:
    """(train, test)"""
    roots = _default_roots() if path is None else [Path(path).expanduser()]
    found = _find(published, roots)
    if found is None and download:
        _download(published, roots[0])
        found = _find(published, roots)
    if found is None:
        raise InputError(_not_found(published, roots))
    read, folder = found
    train, test, names = read(published, folder)
    absent = np.setdiff1d(np.arange(published.num_classes), train[1])
    if len(absent):
        raise InputError(f"The training files in {folder} hold no image of class {absent[0]}; get them again.")
    names = names or [f"class {c}" for c in range(published.num_classes)]
    if len(names) != published.num_classes:
        raise InputError(f"{folder} names {len(names)} classes instead of {published.num_classes}; get it again.")
    return _source(published.name, train, names), _source(f"{published.name} test", test, names)


def _source(name: str, records: _Records, class_names: list[str]) -> ArraySource:
    images = torch.from_numpy(np.ascontiguousarray(records[0]).reshape(-1, 3, 32, 32))
    return ArraySource(name, images, torch.from_numpy(records[1]), class_names)


# Finding the files


def _default_roots() -> list[Path]:
    """Where data sets are kept when the user names no folder."""
    configured = os.environ.get("EVENSPHERE_DATA")
    return [*([Path(configured).expanduser()] if configured else []), Path.home() / ".cache" / "evensphere"]


def _find(published: _Published, roots: list[Path]) -> tuple[Callable[[_Published, Path], _Loaded], Path] | None:
    """How to read the files, and the folder they are in. The binary layout is preferred, as it needs no trust."""
    for folder in _candidates(roots, published.binary_folder):
        if (folder / published.train_files[0]).is_file():
            return _read_binary, folder
    python = _torchvision(published)
    for folder in _candidates(roots, python.base_folder):
        if (folder / python.train_list[0][0]).is_file():
            return _read_python, folder
    return None


def _candidates(roots: list[Path], name: str) -> list[Path]:
    return [folder for root in roots for folder in (root / name, root)]


def _torchvision(published: _Published) -> Any:
    """torchvision's class, for the python layout's address, file names and md5 sums."""
    import torchvision.datasets  # a second of imports that the binary layout does without

    return getattr(torchvision.datasets, published.torchvision_name)


def _not_found(published: _Published, roots: list[Path]) -> str:
    layouts = f"{published.binary_folder} nor {_torchvision(published).base_folder}"
    searched = " or ".join(str(root) for root in roots)
    return (
        f"Found neither {layouts} in {searched}; give the folder that holds one of them with --data PATH, "
        "or set download=true to fetch it."
    )


# Reading them


def _read_binary(published: _Published, folder: Path) -> _Loaded:
    """Plain records: the label bytes, then the pixels."""
    names_file = folder / published.names_file
    lines = names_file.read_text(encoding="utf-8", errors="replace").splitlines() if names_file.is_file() else []
    return _Loaded(
        train=_joined([_records(published, folder / name) for name in published.train_files]),
        test=_records(published, folder / published.test_file),
        class_names=[line.strip() for line in lines if line.strip()] or None,
    )


def _records(published: _Published, file: Path) -> _Records:
    size = published.label_bytes + _PIXELS
    raw = np.frombuffer(_contents(file), dtype=np.uint8)
    if len(raw) == 0 or len(raw) % size:
        raise InputError(
            f"{file} has {len(raw)} bytes, which is not a whole number of images of {size} bytes: it is truncated or "
            f"not a {published.name} file; get it again."
        )
    rows = raw.reshape(-1, size)
    labels = rows[:, published.label_bytes - 1].astype(np.int64)
    if labels.max() >= published.num_classes:
        raise InputError(f"{file} has a label of {labels.max()}, so it is not a {published.name} file; get it again.")
    return rows[:, published.label_bytes :].copy(), labels


def _read_python(published: _Published, folder: Path) -> _Loaded:
    """Pickled dictionaries, opened only if their md5 is the published one."""
    python = _torchvision(published)
    meta_file = folder / python.meta["filename"]
    meta = _unpickle(published, meta_file, python.meta["md5"]) if meta_file.is_file() else {}
    train = [_unpickle(published, folder / name, md5) for name, md5 in python.train_list]
    ((test_name, test_md5),) = python.test_list
    test = _unpickle(published, folder / test_name, test_md5)
    return _Loaded(
        train=_joined([_entry_records(published, entry) for entry in train]),
        test=_entry_records(published, test),
        class_names=meta.get(python.meta["key"]),
    )


def _entry_records(published: _Published, entry: dict[str, Any]) -> _Records:
    return entry["data"], np.array(entry[published.python_label_key], dtype=np.int64)


def _joined(parts: list[_Records]) -> _Records:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _unpickle(published: _Published, file: Path, md5: str) -> dict[str, Any]:
    contents = _contents(file)
    if hashlib.md5(contents, usedforsecurity=False).hexdigest() != md5:
        raise InputError(
            f"{file} is not the published file (its md5 differs), and opening a pickle can run code hidden in it; get "
            f"it again, or use the binary layout ({published.binary_folder}), which is safe."
        )
    with warnings.catch_warnings():
        # numpy 2.4 dislikes how the numpy of 2009 wrote its dtypes
        warnings.filterwarnings("ignore", message=r".*align should be passed as", category=Warning)
        entry: dict[str, Any] = pickle.loads(contents, encoding="latin1")
    return entry


def _contents(file: Path) -> bytes:
    """Read once, so that the bytes that were checked are the bytes that are used."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{file} is missing; get the whole data set again.") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}).") from error


def _download(published: _Published, root: Path) -> None:
    """torchvision's download and unpacking, md5-checked; one process at a time, the others find the files there."""
    from torchvision.datasets.utils import download_and_extract_archive

    python = _torchvision(published)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{python.filename}.lock"):
            if _find(published, [root]) is None:
                download_and_extract_archive(python.url, str(root), filename=python.filename, md5=python.tgz_md5)
    except (OSError, HTTPException, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{published.name} could not be downloaded from {python.url} into {root} ({reason}); get it by other means "
            "and give its folder with --data PATH."
        ) from error
