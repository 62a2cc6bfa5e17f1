"""torchvision's data sets: what torchvision itself says of the same files is the oracle."""

from __future__ import annotations

import os
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from tests.data.image_files import locations
from tests.data.torchvision_files import PER_CLASS, TORCHVISION, inaturalist_2019, without_checksums

import evensphere
from evensphere.data import SOURCES
from evensphere.data.encoded import FileSource
from evensphere.data.source import ArraySource, Source, Splits
from evensphere.errors import InputError

NAMES = list(TORCHVISION)

# how torchvision itself is asked for our training and test parts
ORACLE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "fashion-mnist": ("FashionMNIST", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
    "food101": ("Food101", {"split": "train"}, {"split": "test"}),
    "flowers102": ("Flowers102", {"split": "train"}, {"split": "test"}),
    "pets": ("OxfordIIITPet", {"split": "trainval"}, {"split": "test"}),
    "dtd": ("DTD", {"split": "train"}, {"split": "test"}),
    "gtsrb": ("GTSRB", {"split": "train"}, {"split": "test"}),
    "inaturalist": ("INaturalist", {"version": "2021_train"}, {"version": "2021_valid"}),
}
WHOLE = {"eurosat": "EuroSAT", "caltech101": "Caltech101", "caltech256": "Caltech256"}


@pytest.fixture(autouse=True)
def files_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    without_checksums(monkeypatch)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, root in made.items():
        TORCHVISION[name][0](root)
    return made


def load(name: str, **options: Any) -> Splits:
    module, function = SOURCES[name].split(":")
    splits = getattr(import_module(module), function)(**options)
    assert isinstance(splits, Splits)
    return splits


def content(source: Source) -> list[tuple[bytes, int]]:
    labels = source.labels()
    assert labels is not None
    return sorted((source.read(i).numpy().tobytes(), int(labels[i])) for i in range(len(source)))


def content_of_torchvision(dataset: Any) -> list[tuple[bytes, int]]:
    found = []
    for i in range(len(dataset)):
        image, label = dataset[i]
        pixels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
        found.append((pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1).tobytes(), int(label)))
    return sorted(found)


@pytest.mark.parametrize("name", ORACLE)
def test_official_parts_hold_what_torchvision_says(roots: dict[str, Path], name: str) -> None:
    splits = load(name, path=roots[name])
    reader, train, test = ORACLE[name]
    for part, options in ((splits.pretrain, train), (splits.test, test)):
        assert part is not None
        oracle = getattr(torchvision.datasets, reader)(str(roots[name]), **options)
        assert content(part) == content_of_torchvision(oracle)
    assert splits.probe is splits.pretrain


@pytest.mark.parametrize("name", WHOLE)
def test_undivided_sets_are_divided_by_class(roots: dict[str, Path], name: str) -> None:
    splits, other = load(name, path=roots[name]), load(name, path=roots[name], seed=1)
    parts = [splits.pretrain, splits.validation, splits.test]
    oracle = getattr(torchvision.datasets, WHOLE[name])(str(roots[name]))
    assert sorted(pair for part in parts for pair in content(part)) == content_of_torchvision(oracle)  # type: ignore[arg-type]
    labels = [part.labels() for part in parts if part is not None]
    assert [torch.bincount(found).unique().tolist() for found in labels if found is not None] == [[4], [1], [1]]
    assert locations(other.pretrain) != locations(splits.pretrain)


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_not_there_are_one_sentence(tmp_path: Path, name: str) -> None:
    sentence = (
        rf"^{name} is not in {re.escape(str(tmp_path))}: there is no \S+; .*data\.path=PATH.*data\.download=true\.$"
    )
    with pytest.raises(InputError, match=sentence):
        load(name, path=tmp_path)
    assert not list(tmp_path.iterdir()), "looking makes no folders"


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str) -> None:
    """Every file there, every file empty: what describes the images is unusable, or describes none."""
    TORCHVISION[name][0](tmp_path)
    described = [path for path in tmp_path.rglob("*") if path.is_file()]
    listings = [path for path in described if path.suffix in (".json", ".mat", ".txt", ".csv") or "ubyte" in path.name]
    for path in listings or described:
        path.write_bytes(b"") if listings else path.unlink()
    with pytest.raises(InputError, match=rf"^The {name} files in .* (cannot be read|are incomplete)"):
        load(name, path=tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_sets_own_folder_may_be_given(roots: dict[str, Path], name: str) -> None:
    (own, *_) = [entry for entry in sorted(roots[name].iterdir()) if name != "svhn"] or [roots[name]]
    assert locations(load(name, path=own).pretrain) == locations(load(name, path=roots[name]).pretrain)


def test_without_a_path_the_usual_place_is_searched(
    roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EVENSPHERE_DATA", str(roots["pets"]))
    assert len(load("pets").pretrain) == 2 * PER_CLASS


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_kept_in_memory_and_files_are_read_when_asked_for(roots: dict[str, Path], name: str) -> None:
    source = load(name, path=roots[name]).pretrain
    if name in ("fashion-mnist", "svhn"):
        assert isinstance(source, ArraySource)
        return
    where = locations(source)
    assert where == sorted(where, key=os.fsencode), "the file system's order does not matter"
    assert all((roots[name] / path).is_file() for path in where)
    root_source = source if isinstance(source, FileSource) else source.source  # type: ignore[attr-defined]
    assert isinstance(root_source, FileSource)


def test_a_long_tail_is_made_of_the_training_images(roots: dict[str, Path]) -> None:
    splits = load("fashion-mnist", path=roots["fashion-mnist"], imbalance=5, validation_per_class=1, profile="exp")
    counts = splits.train_counts()
    assert counts is not None
    assert sorted(counts, reverse=True) == [5, 4, 3, 2, 2, 2, 1, 1, 1, 1]  # int(5 * 5 ** (-c/9))
    assert counts != sorted(counts, reverse=True), "the seed decides which class is rare"
    assert splits.probe is not None
    assert splits.validation is not None
    assert (len(splits.probe), len(splits.validation)) == (50, 10)
    assert not set(locations(splits.validation)) & set(locations(splits.probe))
    balanced = load("fashion-mnist", path=roots["fashion-mnist"], imbalance=1, largest=2)
    assert balanced.train_counts() == [2] * 10


def test_a_long_tail_keeps_the_official_validation_images(roots: dict[str, Path]) -> None:
    plain, skewed = load("dtd", path=roots["dtd"]), load("dtd", path=roots["dtd"], imbalance=3)
    assert skewed.validation is not None
    assert plain.validation is not None
    assert sorted(skewed.train_counts() or []) == [2, 6]
    assert locations(skewed.validation) == locations(plain.validation)


def test_settings_that_say_nothing_are_refused(roots: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="largest = 3 was given without an imbalance"):
        load("pets", path=roots["pets"], largest=3)
    with pytest.raises(InputError, match="dtd comes with validation images"):
        load("dtd", path=roots["dtd"], validation_per_class=1)


def test_frames_of_one_track_are_one_group(roots: dict[str, Path]) -> None:
    groups = load("gtsrb", path=roots["gtsrb"]).pretrain.groups()
    splits = load("gtsrb", path=roots["gtsrb"], validation_per_class=1)
    assert splits.validation is not None
    held, kept = splits.validation.groups(), splits.pretrain.groups()
    assert held is not None
    assert kept is not None
    assert not set(held.tolist()) & set(kept.tolist()), "a track stays on one side"
    assert groups is not None
    assert groups.tolist() == [i // 3 for i in range(43 * PER_CLASS)]
    test = load("gtsrb", path=roots["gtsrb"]).test
    assert test is not None
    assert Counter(Counter(test.groups().tolist()).values()) == {1: 43}  # type: ignore[union-attr]


def test_other_years_of_inaturalist(tmp_path: Path) -> None:
    inaturalist_2019(tmp_path)
    splits = load("inaturalist", path=tmp_path, version="2019")
    assert splits.pretrain.class_names == ("Birds/0", "Birds/1", "Plants/2")
    assert splits.group_rule == "shots"
    assert (len(splits.pretrain), len(splits.validation or ()), len(splits.test or ())) == (12, 3, 3)


def test_pickles_of_older_torchvisions_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TORCHVISION["fashion-mnist"][0](tmp_path)
    processed = tmp_path / "FashionMNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(b"not for opening")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    assert len(load("fashion-mnist", path=tmp_path).pretrain) == 10 * PER_CLASS


def test_a_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(url: str, download_root: str, **_: Any) -> None:
        TORCHVISION["eurosat"][0](Path(download_root).parent)

    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", fetch)
    assert len(load("eurosat", path=tmp_path / "new", download=True).pretrain) == 12
    monkeypatch.setattr("torchvision.datasets.eurosat.download_and_extract_archive", pytest.fail)
    assert len(load("eurosat", path=tmp_path / "new", download=True).pretrain) == 12, "once is enough"


def test_a_failed_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.dtd.download_and_extract_archive", unreachable)
    with pytest.raises(InputError, match=r"dtd could not be downloaded.*no network.*--data PATH"):
        load("dtd", path=tmp_path, download=True)


def test_grey_pictures_of_a_colour_set_become_colour(roots: dict[str, Path]) -> None:
    source = load("caltech101", path=roots["caltech101"]).pretrain
    path = roots["caltech101"] / source.location(0)
    Image.new("L", (9, 8), 7).save(path)
    assert source.read(0).unique().tolist() == [7]
    assert source.read(0).shape == (3, 8, 9)


def test_two_files_alone_import_torchvisions_data_sets() -> None:
    package = Path(evensphere.__file__).parent
    importing = [
        file.name for file in package.rglob("*.py") if re.search(r"torchvision(\.| import )datasets", file.read_text())
    ]
    assert sorted(importing) == ["cifar.py", "torchvision_sets.py"]
