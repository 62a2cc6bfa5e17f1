"""What every data source must satisfy; a new line in SOURCES is covered by adding how its files are made."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.stored import png_files, save_dataset, write_shards
from tests.data.torchvision_files import TORCHVISION, without_checksums

from evensphere.data import SOURCE_INFO, SOURCES
from evensphere.data.augment import Views
from evensphere.data.card import write_split
from evensphere.data.folder import folder
from evensphere.data.loader import Loader
from evensphere.data.partition import Division
from evensphere.data.source import ArraySource, Source, Splits, Subset, take


def write_cifar(folder: Path, files: dict[str, int], num_classes: int, label_bytes: int) -> None:
    folder.mkdir()
    for name, per_class in files.items():
        rows = np.random.RandomState(0).randint(0, 256, (num_classes * per_class, label_bytes + 3072)).astype(np.uint8)
        rows[:, label_bytes - 1] = np.arange(len(rows)) % num_classes
        rows.tofile(folder / name)


def digits_options(_: Path) -> dict[str, Any]:
    return {}


def cifar10_options(root: Path) -> dict[str, Any]:
    files = {f"data_batch_{i}.bin": 2 for i in range(1, 6)} | {"test_batch.bin": 1}
    write_cifar(root / "cifar-10-batches-bin", files, 10, 1)
    return {"path": root, "validation_per_class": 2}


def cifar100_options(root: Path) -> dict[str, Any]:
    write_cifar(root / "cifar-100-binary", {"train.bin": 4, "test.bin": 1}, 100, 2)
    return {"path": root, "validation_per_class": 1}


def folder_options(root: Path) -> dict[str, Any]:
    for c in range(3):
        (root / f"class{c}").mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (8 + i, 9), (i, c, 0)).save(root / f"class{c}" / f"{i}.png")
    return {"path": root}


def split_options(root: Path) -> dict[str, Any]:
    options = folder_options(root / "images")
    division = Division(validation=1, test=1, profile="exp", imbalance=2)
    write_split("folder", options, folder(**options), division, root / "split")
    return {"path": root / "split"}


def torchvision_options(name: str) -> Callable[[Path], dict[str, Any]]:
    write, options = TORCHVISION[name]

    def make(root: Path) -> dict[str, Any]:
        write(root)
        return {"path": root, **options}

    return make


def list_options(root: Path) -> dict[str, Any]:
    folder_options(root)
    lines = [f"class{c}/{i}.png {c}\n" for c in range(3) for i in range(6)]
    (root / "list.txt").write_text("".join(lines))
    return {"path": root / "list.txt"}


def table_options(root: Path) -> dict[str, Any]:
    folder_options(root)
    rows = [f"class{c}/{i}.png,class {c}\n" for c in range(3) for i in range(6)]
    (root / "table.csv").write_text("".join(["path,label\n", *rows]))
    return {"path": root / "table.csv"}


def archive_options(root: Path) -> dict[str, Any]:
    folder_options(root / "images")
    return {"path": shutil.make_archive(str(root / "images"), "zip", root / "images")}


def published_options(**lists: str) -> Callable[[Path], dict[str, Any]]:
    """A published set's lists for images of our own: train has 3, probe, validation and test one each."""

    def make(root: Path) -> dict[str, Any]:
        folder_options(root)
        for part, numbers in {"train": (0, 1, 2), "probe": (3,), "validation": (4,), "test": (5,)}.items():
            if part in lists:
                lines = [f"class{c}/{i}.png {c}\n" for c in range(3) for i in numbers]
                (root / lists[part]).write_text("".join(lines))
        return {"path": root, "check": False}

    return make


def hub_options(root: Path) -> dict[str, Any]:
    return {"path": save_dataset(folder_options(root / "images")["path"], root / "saved")}


def shards_options(root: Path) -> dict[str, Any]:
    return {"path": write_shards(root / "shards", png_files(folder_options(root / "images")["path"]), per_shard=5)}


def array_options(root: Path) -> dict[str, Any]:
    images = np.random.RandomState(0).randint(0, 256, (18, 8, 9, 3)).astype(np.uint8)
    np.savez(root / "images.npz", images=images, labels=np.arange(18) % 3)
    return {"path": root / "images.npz"}


MAKE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "digits": digits_options,
    "cifar10": cifar10_options,
    "cifar100": cifar100_options,
    "folder": folder_options,
    "split": split_options,
    **{name: torchvision_options(name) for name in TORCHVISION},
    "list": list_options,
    "table": table_options,
    "archive": archive_options,
    "imagenet-lt": published_options(
        train="ImageNet_LT_train.txt",
        probe="ImageNet_split1_test_100shot.txt",
        validation="ImageNet_LT_val.txt",
        test="ImageNet_LT_test.txt",
    ),
    "places-lt": published_options(
        train="Places_LT_train.txt", validation="Places_LT_val.txt", test="Places_LT_test.txt"
    ),
    "inaturalist2018": published_options(train="iNaturalist18_train.txt", test="iNaturalist18_val.txt"),
    "imagenet100-lt": published_options(
        train="imageNet_100_LT_train.txt", validation="ImageNet_100_val.txt", test="ImageNet_100_test.txt"
    ),
    "hub": hub_options,
    "shards": shards_options,
    "array": array_options,
}
STREAMS = ("shards",)  # test_stream.py says what these must satisfy

WITHOUT_VALIDATION = ("inaturalist2018",)


@pytest.fixture(scope="module", autouse=True)
def files_of_our_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_checksums(patch)
        yield


@pytest.fixture(scope="module", params=[name for name in SOURCES if name not in STREAMS])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def splits(name: str, tmp_path_factory: pytest.TempPathFactory) -> Splits:
    module, function = SOURCES[name].split(":")
    options = MAKE[name](tmp_path_factory.mktemp(name))
    loaded = getattr(import_module(module), function)(**options)
    assert isinstance(loaded, Splits)
    assert (loaded.validation is None) == (name in WITHOUT_VALIDATION)
    return loaded


def parts(splits: Splits) -> list[Source]:
    found = [part for part in splits if isinstance(part, Source)]
    assert len(found) >= 3
    return found


def some(part: Source) -> list[int]:
    return sorted({0, len(part) // 2, len(part) - 1})


def test_names_need_no_torch() -> None:
    code = "import sys, evensphere.data as d; assert d.SOURCES and d.SOURCE_INFO; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_source_is_described_and_tested() -> None:
    assert list(SOURCES) == list(SOURCE_INFO)
    assert SOURCES.keys() == MAKE.keys()
    assert all(text for info in SOURCE_INFO.values() for text in info)


def test_images_are_uint8_of_the_promised_shape(splits: Splits) -> None:
    for part in parts(splits):
        for i in some(part):
            pixels = part.read(i)
            assert pixels.dtype == torch.uint8
            assert pixels.shape[0] == part.channels
            assert part.image_size in (None, tuple(pixels.shape[1:]))
        with pytest.raises(IndexError):
            part.read(len(part))


def test_labels_name_known_classes(splits: Splits) -> None:
    for part in parts(splits):
        labels = part.labels()
        assert labels is not None
        assert part.class_names is not None
        assert part.class_names == splits.pretrain.class_names
        assert len(labels) == len(part) > 0
        assert labels.dtype == torch.int64
        assert 0 <= int(labels.min()) <= int(labels.max()) < len(part.class_names)
    counts = splits.train_counts()
    assert counts is not None
    assert min(counts) >= 1
    assert sum(counts) == len(splits.pretrain)
    assert splits.group_rule in ("thirds", "shots")


def test_locations_are_unique_and_tell_the_parts_apart(splits: Splits) -> None:
    where = [[part.location(i) for i in range(len(part))] for part in parts(splits)]
    assert all(len(set(names)) == len(names) for names in where)
    assert len({location for part in where[1:] for location in part}) == sum(map(len, where[1:]))


def test_workers_can_be_sent_a_copy(splits: Splits) -> None:
    for part in parts(splits):
        copy = pickle.loads(pickle.dumps(part))
        assert len(copy) == len(part)
        for i in some(part):
            assert copy.read(i).equal(part.read(i))
            assert copy.location(i) == part.location(i)


def test_training_asks_for_no_label_and_two_workers_read_what_none_does(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = splits.pretrain

    def refuse() -> None:
        raise AssertionError("labels are for evaluation")

    monkeypatch.setattr(part, "labels", refuse)
    mean, std = (0.0,) * part.channels, (1.0,) * part.channels
    views = Views(8, jitter=(0, 0, 0, 0), gray=0, mean=mean, std=std)
    alone, shared = (dict(Loader(part, 4, views, 0, workers).batches(0, 2)) for workers in (0, 2))
    for step, batch in alone.items():
        assert batch.index.equal(shared[step].index)
        for one, other in zip(views(batch, 0), views(shared[step], 0), strict=True):
            assert one.equal(other)


def test_taking_some_keeps_what_they_are(splits: Splits) -> None:
    for part in parts(splits):
        order = torch.tensor(some(part)[::-1])
        chosen = take(take(part, order), torch.tensor([0]))
        labels, all_labels = chosen.labels(), part.labels()
        assert labels is not None
        assert all_labels is not None
        assert chosen.location(0) == part.location(int(order[0]))
        assert chosen.read(0).equal(part.read(int(order[0])))
        assert labels.tolist() == [int(all_labels[order[0]])]
        assert chosen.class_names == part.class_names
        assert not (isinstance(chosen, Subset) and isinstance(chosen.source, ArraySource | Subset))


def test_the_same_options_give_the_same_images(name: str, splits: Splits, tmp_path: Path) -> None:
    module, function = SOURCES[name].split(":")
    again = getattr(import_module(module), function)(**MAKE[name](tmp_path))
    for one, other in zip(parts(splits), parts(again), strict=True):
        assert [one.location(i) for i in range(len(one))] == [other.location(i) for i in range(len(other))]
        assert one.read(0).equal(other.read(0))
