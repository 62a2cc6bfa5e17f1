"""The same images are the same run, whatever they are kept in."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import webdataset
from PIL import Image
from tests.data.image_files import locations
from tests.data.stored import save_dataset

from evensphere.data.shards import ShardStream
from evensphere.data.source import Splits
from evensphere.data.stream import Arrived, Sample
from evensphere.errors import InputError
from evensphere.recipes.part import build
from evensphere.recipes.recipe import collection, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

COUNTS = {"Zebra": 12, "ant": 9, "bee": 5, "über": 4}  # sorted by bytes
NUMBER = {name: c for c, name in enumerate(COUNTS)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of noise in several sizes and formats, one image of them damaged."""
    root = tmp_path_factory.mktemp("same") / "images"
    random = np.random.RandomState(0)
    for name, count in COUNTS.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.randint(0, 256, (30 + i, 36, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}{' x.jpg' if i % 3 else '.png'}")
    (root / "ant" / "damaged.jpg").write_bytes(b"no image")
    return root


def files(root: Path) -> list[tuple[str, str]]:
    """(path, class), in no order of use."""
    return [(path.relative_to(root).as_posix(), path.parent.name) for path in sorted(root.rglob("*.*"), reverse=True)]


def as_list(root: Path, out: Path) -> Path:
    shutil.copytree(root, out, dirs_exist_ok=True)
    (out / "list.txt").write_text("".join(f"{path} {NUMBER[name]}\n" for path, name in files(root)))
    return out / "list.txt"


def as_csv(root: Path, out: Path) -> Path:
    shutil.copytree(root, out, dirs_exist_ok=True)
    with (out / "rows.csv").open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows([("path", "label"), *files(root)])
    return out / "rows.csv"


def as_parquet(root: Path, out: Path) -> Path:
    """With the files' bytes inside, as Hugging Face writes them."""
    images = [{"bytes": (root / path).read_bytes(), "path": path} for path, _ in files(root)]
    table = pa.table({"image": images, "label": [NUMBER[name] for _, name in files(root)]})
    names = {"huggingface": json.dumps({"info": {"features": {"label": {"names": list(COUNTS)}}}})}
    pyarrow.parquet.write_table(table.replace_schema_metadata(names), out / "images.parquet")
    return out / "images.parquet"


def as_zip(root: Path, out: Path) -> Path:
    return Path(shutil.make_archive(str(out / "images"), "zip", root))


def as_tar(root: Path, out: Path) -> Path:
    return Path(shutil.make_archive(str(out / "images"), "tar", root))


# how the images are put into each kind of collection: (class folders, an empty folder) -> the path for --data
MAKE: dict[str, Callable[[Path, Path], Path]] = {
    "list": as_list,
    "csv": as_csv,
    "parquet": as_parquet,
    "zip": as_zip,
    "tar": as_tar,
    "hub": lambda root, out: save_dataset(root, out / "saved"),
}


@pytest.fixture(scope="module")
def folder_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return first_epoch(images, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module", params=MAKE)
def made(request: pytest.FixtureRequest, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKE[request.param](images, tmp_path_factory.mktemp(request.param))


def loaded(path: Path) -> Splits:
    splits = build("data", collection(str(path)))
    assert isinstance(splits, Splits)
    return splits


def first_epoch(data: Path, out: Path) -> RunDir:
    small = ["epochs=1", "backbone=resnet-small", "backbone.width=4", "backbone.stages=2", "views.size=16"]
    return RunDir(train(with_data(get_recipe("folder"), str(data)).set([*small, "batch_size=8", "workers=0"]), out))


def test_the_images_their_numbers_and_their_classes(images: Path, made: Path) -> None:
    for one, other in zip(loaded(images)[:4], loaded(made)[:4], strict=True):
        assert one is not None
        assert other is not None
        assert locations(one) == locations(other)
        assert one.class_names == other.class_names == tuple(COUNTS)
        labels, others = one.labels(), other.labels()
        assert labels is not None
        assert others is not None
        assert labels.equal(others)
    one, other = loaded(images).pretrain, loaded(made).pretrain
    damaged = locations(one).index("ant/damaged.jpg")
    assert all(one.read(i).equal(other.read(i)) for i in range(len(one)) if i != damaged)
    assert loaded(made).train_counts() == [12, 10, 5, 4]


def test_shards_hold_the_same_images_and_tell_of_the_same_classes(images: Path, tmp_path: Path) -> None:
    """In another order, and without numbers."""
    with webdataset.ShardWriter(str(tmp_path / "shard-%02d.tar"), maxcount=9, verbose=0) as writer:
        for path, name in files(images):
            key, _, ending = path.rpartition(".")
            writer.write({"__key__": key, ending: (images / path).read_bytes(), "cls": NUMBER[name]})
    stream = loaded(tmp_path).pretrain
    assert isinstance(stream, ShardStream)
    arrived = {sample.location.partition("/")[2]: sample.data for sample in stream.epoch(seed=0, epoch=0)}
    source = loaded(images).pretrain
    assert sorted(arrived) == sorted(locations(source))
    read = Arrived("shards", dict(enumerate(Sample(*item) for item in arrived.items())), 3)
    place = {where: i for i, where in enumerate(locations(source)) if where != "ant/damaged.jpg"}
    assert all(read.read(i).equal(source.read(place[where])) for i, where in enumerate(arrived) if where in place)
    assert list(stream.class_counts().values()) == loaded(images).train_counts()


def test_the_first_epoch_to_the_bit(folder_run: RunDir, made: Path, tmp_path: Path) -> None:
    run = first_epoch(made, tmp_path / "run")
    assert run.metrics_file.read_bytes() == folder_run.metrics_file.read_bytes()
    assert run.encoder_file.read_bytes() == folder_run.encoder_file.read_bytes()
    assert run.images_file.read_bytes() == folder_run.images_file.read_bytes()
    assert run.skipped_file.read_bytes() == folder_run.skipped_file.read_bytes()
    steps = [event for event in run.read_metrics() if event["event"] == "step"]
    assert len(steps) == 4
    assert [location for location, _ in run.read_skipped()] == ["ant/damaged.jpg"]


def test_the_evaluation(folder_run: RunDir, images: Path, made: Path) -> None:
    results = [evaluate(folder_run.path, data=path, metrics=["knn"]) for path in (images, made)]
    assert [result.pop("settings") for result in results] == [{"data": str(path)} for path in (images, made)]
    assert results[0] == results[1]


def test_what_has_no_labels_says_so(folder_run: RunDir, images: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{images / path}\n" for path, _ in files(images)))
    with pytest.raises(InputError, match=r"list\.txt has no labels to evaluate with: put every image"):
        evaluate(folder_run.path, data=tmp_path / "list.txt")
