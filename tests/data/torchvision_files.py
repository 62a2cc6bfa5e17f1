"""torchvision's data sets in small: each set's files as they lie on disk, with real pictures in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from tests.data.image_files import write

PER_CLASS = 6


def picture(path: Path, number: int, label: int) -> None:
    """An image that tells its number and its class by its red and its green."""
    write(path, (number, label, 0), (9 + number % 3, 8))


def fashion_mnist(root: Path) -> None:
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, per_class in (("train", PER_CLASS), ("t10k", 2)):
        labels = np.arange(10 * per_class, dtype=np.uint8) % 10
        images = np.repeat(labels, 28 * 28).reshape(-1, 28, 28)
        sizes = [np.array(shape, ">u4").tobytes() for shape in (images.shape, labels.shape)]
        (raw / f"{part}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes[0] + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[1] + labels.tobytes())


def svhn(root: Path) -> None:
    for part, per_class in (("train", PER_CLASS), ("test", 2)):
        digits = np.arange(10 * per_class) % 10
        images = np.broadcast_to(digits.astype(np.uint8), (32, 32, 3, len(digits)))
        labels = np.where(digits == 0, 10, digits).astype(np.uint8)  # the digit 0 is stored as 10
        savemat(root / f"{part}_32x32.mat", {"X": images, "y": labels[:, None]})


def eurosat(root: Path) -> None:
    for label, name in enumerate(("AnnualCrop", "Forest", "River")):
        for i in range(PER_CLASS):
            picture(root / "eurosat" / "2750" / name / f"{name}_{i}.jpg", i, label)


def food101(root: Path) -> None:
    meta = root / "food-101" / "meta"
    meta.mkdir(parents=True)
    for part, numbers in (("train", range(PER_CLASS)), ("test", range(100, 102))):
        listed = {name: [f"{name}/{i}" for i in numbers] for name in ("apple_pie", "waffles")}
        (meta / f"{part}.json").write_text(json.dumps(listed))
        for label, paths in enumerate(listed.values()):
            for i, path in zip(numbers, paths, strict=True):
                picture(root / "food-101" / "images" / f"{path}.jpg", i, label)


def flowers102(root: Path) -> None:
    """Of each of the 102 flowers two images for training, one for validation, one to test."""
    top = root / "flowers-102"
    labels = np.arange(4 * 102) % 102
    for i, label in enumerate(labels.tolist()):
        picture(top / "jpg" / f"image_{i + 1:05d}.jpg", i % 256, label)
    numbers = np.split(np.arange(1, len(labels) + 1), 4)
    savemat(top / "imagelabels.mat", {"labels": labels + 1})
    savemat(top / "setid.mat", {"trnid": np.concatenate(numbers[:2]), "valid": numbers[2], "tstid": numbers[3]})


def pets(root: Path) -> None:
    notes = root / "oxford-iiit-pet" / "annotations"
    notes.mkdir(parents=True)
    for part, numbers in (("trainval", range(PER_CLASS)), ("test", range(100, 102))):
        lines = []
        for label, name in enumerate(("Abyssinian", "american_bulldog")):
            for i in numbers:
                picture(root / "oxford-iiit-pet" / "images" / f"{name}_{i}.jpg", i, label)
                lines.append(f"{name}_{i} {label + 1} {label + 1} 1")
        (notes / f"{part}.txt").write_text("\n".join(lines) + "\n")


def dtd(root: Path) -> None:
    top = root / "dtd" / "dtd"
    (top / "labels").mkdir(parents=True)
    for part, numbers in (("train", range(PER_CLASS)), ("val", range(50, 53)), ("test", range(100, 103))):
        lines = []
        for label, name in enumerate(("banded", "zigzagged")):
            for i in numbers:
                picture(top / "images" / name / f"{name}_{i:04d}.jpg", i, label)
                lines.append(f"{name}/{name}_{i:04d}.jpg")
        (top / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")


def caltech101(root: Path) -> None:
    top = root / "caltech101" / "101_ObjectCategories"
    for label, name in enumerate(("BACKGROUND_Google", "Faces", "ant")):
        for i in range(PER_CLASS):
            picture(top / name / f"image_{i + 1:04d}.jpg", i, max(0, label - 1))


def caltech256(root: Path) -> None:
    top = root / "caltech256" / "256_ObjectCategories"
    for label, name in enumerate(("001.ak47", "002.american-flag", "003.backpack")):
        for i in range(PER_CLASS):
            picture(top / name / f"{label + 1:03d}_{i + 1:04d}.jpg", i, label)
    (top / "003.backpack" / "RENAME2").touch()  # the published archive has such files


def gtsrb(root: Path) -> None:
    """Two tracks of three frames in each class."""
    top = root / "gtsrb" / "GTSRB"
    for label in range(43):
        for i in range(PER_CLASS):
            picture(top / "Training" / f"{label:05d}" / f"{i // 3:05d}_{i % 3:05d}.ppm", i, label)
    with open(root / "gtsrb" / "GT-final_test.csv", "w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["Filename", "Width", "Height", "ClassId"])
        for label in range(43):
            picture(top / "Final_Test" / "Images" / f"{label:05d}.ppm", 100, label)
            rows.writerow([f"{label:05d}.ppm", 9, 8, label])


def inaturalist(root: Path) -> None:
    for version, numbers in (("2021_train", range(PER_CLASS)), ("2021_valid", range(100, 102))):
        for label in range(3):
            species = f"{label:05d}_Animalia_Arthropoda_Insecta_Diptera_Culicidae_Aedes_species{label}"
            for i in numbers:
                picture(root / version / species / f"{i:03d}.jpg", i, label)


def inaturalist_2019(root: Path) -> None:
    for label, folder in enumerate(("Birds/0", "Birds/1", "Plants/2")):
        for i in range(PER_CLASS):
            picture(root / "2019" / folder / f"{i}.jpg", i, label)


# source's name -> what writes its files; the options with which it has all four parts
TORCHVISION: dict[str, tuple[Callable[[Path], None], dict[str, Any]]] = {
    "fashion-mnist": (fashion_mnist, {"validation_per_class": 1}),
    "svhn": (svhn, {"validation_per_class": 1}),
    "eurosat": (eurosat, {}),
    "food101": (food101, {"validation_per_class": 1}),
    "flowers102": (flowers102, {}),
    "pets": (pets, {"validation_per_class": 1}),
    "dtd": (dtd, {}),
    "caltech101": (caltech101, {}),
    "caltech256": (caltech256, {}),
    "gtsrb": (gtsrb, {"validation_per_class": 1}),
    "inaturalist": (inaturalist, {"validation_per_class": 1}),
}


def without_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of torchvision's classes take the published files only."""
    from torchvision.datasets import flowers102, svhn

    for module in (flowers102, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())
