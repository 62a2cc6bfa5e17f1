"""CIFAR's two layouts, read bit for bit from small files of the same format; foreign and hostile files are refused."""

from __future__ import annotations

import hashlib
import pickle
import urllib.error
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets
from torchvision.datasets import utils as torchvision_utils

from evensphere.data.cifar import cifar10, cifar100
from evensphere.data.source import ArraySource, Splits
from evensphere.errors import InputError

NAMES = [f"name_{c}" for c in range(100)]


def records(num_classes: int, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels [N, 3072] and their labels, classes interleaved."""
    generator = np.random.RandomState(seed)
    labels = np.tile(np.arange(num_classes), per_class)
    return generator.randint(0, 256, (len(labels), 3072)).astype(np.uint8), labels


def write_binary_100(root: Path, per_class: int = 4) -> Path:
    folder = root / "cifar-100-binary"
    folder.mkdir(parents=True)
    for name, count, seed in (("train", per_class, 0), ("test", 1, 1)):
        images, labels = records(100, count, seed)
        coarse = np.full((len(labels), 1), 99, np.uint8)  # a reader that took the coarse label would see only 99
        np.hstack([coarse, labels[:, None].astype(np.uint8), images]).tofile(folder / f"{name}.bin")
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def write_binary_10(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = records(10, 2, i)
        np.hstack([labels[:, None].astype(np.uint8), images]).tofile(folder / f"{name}.bin")
    return folder


class LegacyDtype:
    """Pickles as the numpy that wrote CIFAR did, with an integer `align`, which numpy 2.4 warns about."""

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(np.dtype, "u1", align=0), ()


def write_python_100(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small python layout, published so far as torchvision's list of sums can tell."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    sums = {}
    for name, count, seed in (("train", 4, 0), ("test", 1, 1)):
        images, labels = records(100, count, seed)
        entry = {"data": images, "fine_labels": labels.tolist(), "dtype": LegacyDtype()}
        (folder / name).write_bytes(pickle.dumps(entry, protocol=2))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": NAMES}, protocol=2))
    for name in ("train", "test", "meta"):
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(torchvision.datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(
        torchvision.datasets.CIFAR100, "meta", {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    )
    return folder


def assert_holds(part: object, images: np.ndarray, labels: np.ndarray) -> None:
    """Every image of the part is, bit for bit, the file's image of its number."""
    assert isinstance(part, ArraySource)
    numbers = part.numbers.numpy()
    assert (part.images.numpy().reshape(len(part), -1) == images[numbers]).all()
    assert part._labels is not None
    assert part._labels.tolist() == labels[numbers].tolist()


def assert_is_cifar100(splits: Splits) -> None:
    images, labels = records(100, 4, 0)
    for part in (splits.pretrain, splits.probe, splits.validation):
        assert_holds(part, images, labels)
    assert_holds(splits.test, *records(100, 1, 1))
    assert splits.pretrain.class_names == tuple(NAMES)


@pytest.mark.parametrize("inside", [False, True])
def test_binary_cifar100_is_read_bit_for_bit(tmp_path: Path, inside: bool) -> None:
    folder = write_binary_100(tmp_path)
    splits = cifar100(folder if inside else tmp_path, imbalance=3, validation_per_class=1)
    assert_is_cifar100(splits)
    assert (len(splits.probe or ""), len(splits.validation or ""), len(splits.test or "")) == (300, 100, 100)
    assert splits.pretrain.image_size == (32, 32)
    counts = splits.train_counts()
    assert counts is not None
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (3, 1)


def test_binary_cifar10_is_read_bit_for_bit(tmp_path: Path) -> None:
    write_binary_10(tmp_path)
    splits = cifar10(str(tmp_path), imbalance=8, validation_per_class=2)
    batches = [records(10, 2, i) for i in range(5)]
    images, labels = (np.concatenate([batch[k] for batch in batches]) for k in (0, 1))
    for part in (splits.pretrain, splits.probe, splits.validation):
        assert_holds(part, images, labels)
    assert_holds(splits.test, *records(10, 2, 5))
    assert splits.pretrain.class_names == tuple(f"class {c}" for c in range(10))
    counts = splits.train_counts()
    assert counts is not None
    assert sorted(counts, reverse=True) == [8, 6, 5, 4, 3, 2, 2, 1, 1, 1]
    assert counts != sorted(counts, reverse=True)  # the order of the classes is shuffled, as the authors do


def test_without_validation_the_largest_class_keeps_every_image(tmp_path: Path) -> None:
    write_binary_100(tmp_path)
    splits = cifar100(tmp_path, validation_per_class=0)
    assert splits.validation is None
    assert len(splits.probe or "") == 400
    assert max(splits.train_counts() or []) == 4


def test_the_parts_do_not_overlap(tmp_path: Path) -> None:
    write_binary_100(tmp_path)
    splits = cifar100(tmp_path, validation_per_class=1)
    where = [{part.location(i) for i in range(len(part))} for part in splits[:4] if isinstance(part, ArraySource)]
    pretrain, probe, validation, test = where
    assert pretrain < probe
    assert not probe & validation
    assert not (probe | validation) & test


def test_python_layout_is_read_if_its_md5_is_the_published_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_python_100(tmp_path, monkeypatch)
    assert_is_cifar100(cifar100(tmp_path, validation_per_class=1))
    assert_is_cifar100(cifar100(folder, validation_per_class=1))
    (folder / "meta").unlink()
    assert cifar100(folder, validation_per_class=1).pretrain.class_names[99] == "class 99"  # type: ignore[index]


class Trap:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_pickle_that_was_not_published_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = write_python_100(tmp_path, monkeypatch)
    (folder / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(InputError, match=r"md5 differs.*cifar-100-binary"):
        cifar100(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_the_published_sums_are_known_for_both_sets() -> None:
    """The reader relies on these attributes of torchvision's classes."""
    for name, files in (("CIFAR10", 6), ("CIFAR100", 2)):
        published = getattr(torchvision.datasets, name)
        assert len(published.train_list + published.test_list) == files
        assert all(len(md5) == 32 for _, md5 in published.train_list + published.test_list)
        assert {"filename", "key", "md5"} <= set(published.meta)


@pytest.mark.parametrize("size", [0, 1, 3073, 3074 * 400 - 1])
def test_truncated_files_are_refused(tmp_path: Path, size: int) -> None:
    file = write_binary_100(tmp_path) / "train.bin"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"train\.bin has {size} bytes.*3074"):
        cifar100(tmp_path)


def test_files_of_another_set_are_refused(tmp_path: Path) -> None:
    folder = write_binary_100(tmp_path)
    raw = np.fromfile(folder / "train.bin", np.uint8).reshape(-1, 3074)
    raw[7, 1] = 100
    raw.tofile(folder / "train.bin")
    with pytest.raises(InputError, match="label of 100"):
        cifar100(tmp_path)
    raw[7, 1] = 7
    raw[raw[:, 1] != 42].tofile(folder / "train.bin")
    with pytest.raises(InputError, match="no image of class 42"):
        cifar100(tmp_path)


def test_missing_files_and_odd_names_are_refused(tmp_path: Path) -> None:
    folder = write_binary_100(tmp_path)
    (folder / "fine_label_names.txt").write_text("apple\n")
    with pytest.raises(InputError, match="names 1 classes instead of 100"):
        cifar100(tmp_path, validation_per_class=1)
    (folder / "test.bin").unlink()
    with pytest.raises(InputError, match=r"test\.bin is missing"):
        cifar100(tmp_path, validation_per_class=1)


def test_holding_out_every_image_is_refused(tmp_path: Path) -> None:
    write_binary_100(tmp_path)
    with pytest.raises(InputError, match="hold out fewer"):
        cifar100(tmp_path)


def test_without_a_path_the_usual_places_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setenv("EVENSPHERE_DATA", str(tmp_path / "configured"))
    with pytest.raises(InputError, match=r"configured or .*evensphere; give the folder.*--data PATH.*download=true"):
        cifar100()
    write_binary_100(tmp_path / "home" / ".cache" / "evensphere")
    assert len(cifar100(validation_per_class=0).probe or "") == 400
    write_binary_100(tmp_path / "configured", per_class=5)
    assert len(cifar100(validation_per_class=0).probe or "") == 500


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torchvision_utils, "download_and_extract_archive", unreachable)
    with pytest.raises(
        InputError, match=r"cifar10 could not be downloaded from http.*Name or service not known.*--data"
    ):
        cifar10(tmp_path / "new", download=True)


def test_a_download_happens_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        calls.append((url, filename, md5))
        write_python_100(Path(root), monkeypatch)

    monkeypatch.setattr(torchvision_utils, "download_and_extract_archive", fetch)
    for _ in range(2):
        assert_is_cifar100(cifar100(tmp_path / "new", validation_per_class=1, download=True))
    published = torchvision.datasets.CIFAR100
    assert calls == [(published.url, published.filename, published.tgz_md5)]
