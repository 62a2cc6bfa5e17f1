"""Hugging Face data sets: the same images as in a folder, columns by their type, and nothing fetched unasked."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

import datasets
import numpy as np
import pytest
from PIL import Image
from tests.data.image_files import class_folders, locations, write
from tests.data.stored import save_dataset, save_rows

from evensphere.data.folder import folder
from evensphere.data.hub import HubStream, hub
from evensphere.data.scan import scan
from evensphere.data.source import Source, Splits
from evensphere.data.stream import Stream
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.rundir import RunDir


def same_images(one: Source | None, other: Source | None) -> bool:
    if one is None or other is None:
        return one is other
    labels, others = one.labels(), other.labels()
    assert locations(one) == locations(other)
    assert one.class_names == other.class_names
    assert (labels is None) == (others is None)
    assert labels is None or others is None or labels.equal(others)
    return all(one.read(i).equal(other.read(i)) for i in range(len(one)))


def noise(path: Path, seed: int, size: tuple[int, int] = (9, 12), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8)).save(path, **options)


def png(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (colour, 0, 0)).save(file, "png")
    return file.getvalue()


def test_a_saved_folder_is_the_folder(tmp_path: Path) -> None:
    """Order, numbers, names, labels, pixels and the division by class, JPEGs with an orientation among them."""
    images = tmp_path / "images"
    turned = Image.Exif()
    turned[0x0112] = 6
    for number, name in enumerate(["a b", "Zoo", "ant"] * 6):
        noise(images / name / f"{number}.jpg", number, exif=turned)
    saved, plain = hub(save_dataset(images, tmp_path / "saved")), folder(images)
    assert saved.pretrain.class_names == ("Zoo", "a b", "ant")
    assert saved.pretrain.read(0).shape == (3, 12, 9)
    assert all(same_images(one, other) for one, other in zip(saved[:4], plain[:4], strict=True))


def test_a_saved_folder_trains_like_the_folder(tmp_path: Path) -> None:
    """The same first epoch, to the bit."""
    images = tmp_path / "images"
    for number in range(20):
        noise(images / "ab"[number % 2] / f"{number}.png", number, (33 + number, 40))
    small = ["epochs=1", "batch_size=8", "backbone=resnet-small", "backbone.width=4", "backbone.stages=1", "workers=0"]
    logs = []
    for path in (images, save_dataset(images, tmp_path / "saved")):
        run = RunDir(train(with_data(get_recipe("folder"), str(path)).set(small), tmp_path / "runs" / path.name))
        logs.append(run.metrics_file.read_bytes())
        assert run.read_images() == locations(folder(images).pretrain)
    assert logs[0] == logs[1]


def test_saved_splits_are_the_folders_splits(tmp_path: Path) -> None:
    images = tmp_path / "images"
    class_folders(images / "train", dog=3, cat=4)
    class_folders(images / "validation", dog=1, cat=1)
    class_folders(images / "test", dog=2, cat=1)
    saved, plain = hub(save_dataset(images, tmp_path / "saved")), folder(images)
    assert saved.probe is saved.pretrain
    assert all(same_images(one, other) for one, other in zip(saved[:4], plain[:4], strict=True))
    swapped = hub(tmp_path / "saved", train="test", test="train")
    assert swapped.train_counts() == [1, 2]
    assert swapped.test is not None
    assert len(swapped.test) == 7
    with pytest.raises(InputError, match=r"no split 'exam' for data\.test; it has train, validation, test"):
        hub(tmp_path / "saved", test="exam")


def test_validation_alone_is_the_test_set_and_an_unlabelled_test_set_is_none(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["b", "a"])})
    split = {
        name: datasets.Dataset.from_dict({"image": [{"bytes": png(i)} for i in range(4)], "label": labels}, features)
        for name, labels in {"train": [0, 1, 0, 1], "valid": [1, 1, 0, 1], "test": [-1] * 4}.items()
    }
    datasets.disable_progress_bars()
    datasets.DatasetDict(split).save_to_disk(str(tmp_path / "all"))
    splits = hub(tmp_path / "all")
    assert splits.pretrain.class_names == ("a", "b")
    assert splits.validation is None
    assert splits.test is not None
    labels = splits.test.labels()
    assert labels is not None
    assert labels.tolist() == [0, 0, 1, 0], "by name, in the order of the rows"
    assert locations(splits.test) == [f"valid[{row}]" for row in range(4)]


def test_classes_that_training_never_saw_are_refused(tmp_path: Path) -> None:
    images = tmp_path / "images"
    class_folders(images / "train", dog=3, cat=4)
    class_folders(images / "test", dog=2, cat=1, emu=1)
    with pytest.raises(InputError, match="class 'emu', but training knows 2 classes"):
        hub(save_dataset(images, tmp_path / "saved"))


def test_columns_are_found_by_their_type_or_named(tmp_path: Path) -> None:
    kinds = {
        "left": datasets.Image(),
        "right": datasets.Image(),
        "raw": datasets.Value("binary"),
        "file": datasets.Value("string"),
        "kind": datasets.ClassLabel(names=["y", "x"]),
        "species": datasets.Value("int64"),
        "patient": datasets.Value("string"),
    }
    write(tmp_path / "0.png", (90, 0, 0))
    rows: dict[str, list[Any]] = {
        "left": [{"bytes": png(i)} for i in range(4)],
        "right": [{"bytes": png(10 + i)} for i in range(4)],
        "raw": [png(20 + i) for i in range(4)],
        "file": [str(tmp_path / "0.png")] * 4,
        "kind": [0, 1, 1, 0],
        "species": [10, 2, 2, 10],
        "patient": ["p", None, "p", None],
    }
    path = save_rows(tmp_path / "saved", rows, **kinds)
    with pytest.raises(InputError, match=r"several columns of images \(left, right\); say which of left, right, raw"):
        hub(path)
    reds = {
        name: [int(hub(path, image_column=name).pretrain.read(i)[0, 0, 0]) for i in range(4)]
        for name in ("left", "right", "raw", "file")
    }
    assert reds == {"left": [0, 1, 2, 3], "right": [10, 11, 12, 13], "raw": [20, 21, 22, 23], "file": [90] * 4}
    found = hub(path, image_column="left", group_column="patient").pretrain
    assert found.class_names == ("x", "y")
    groups = found.groups()
    assert groups is not None
    assert groups.tolist() == [0, 1, 0, 2]
    named = hub(path, image_column="left", label_column="species").pretrain
    labels = named.labels()
    assert labels is not None
    assert (named.class_names, labels.tolist()) == (("10", "2"), [0, 1, 1, 0])
    for column, option in (("mask", "image_column"), ("class", "label_column"), ("burst", "group_column")):
        with pytest.raises(InputError, match=f"no column '{column}'; it has left"):
            hub(path, **{"image_column": "left", option: column})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="species does not hold images"):
        hub(path, image_column="species")


def test_rows_that_cannot_be_read_have_a_reason(tmp_path: Path) -> None:
    gone = write(tmp_path / "gone.png")
    contents = [{"bytes": png(1)}, None, {"bytes": b"text"}, {"path": str(gone)}, {"bytes": b""}]
    path = save_rows(tmp_path / "saved", {"image": contents}, image=datasets.Image())
    source = hub(path).pretrain
    assert source.labels() is None
    assert dict(scan(source)).keys() == {1, 2, 4}, "the file was saved with the rest"
    assert dict(scan(source))[1] == "the row holds no image"


def test_images_with_the_same_name_keep_their_rows(tmp_path: Path) -> None:
    contents = [{"bytes": png(i), "path": "same.png"} for i in range(3)]
    source = hub(save_rows(tmp_path / "saved", {"image": contents}, image=datasets.Image())).pretrain
    assert locations(source) == ["row[0]", "row[1]", "row[2]"]
    assert [int(source.read(i)[0, 0, 0]) for i in range(3)] == [0, 1, 2]


def test_a_path_that_is_no_saved_data_set(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"cannot be loaded \("):
            hub(path)
    one = save_rows(tmp_path / "one", {"image": [{"bytes": png(0)}]}, image=datasets.Image())
    with pytest.raises(InputError, match=r"holds 1 image\(s\); training compares images"):
        hub(one)
    none = save_rows(tmp_path / "none", {"caption": ["a", "b"]}, caption=datasets.Value("string"))
    with pytest.raises(InputError, match="no column of the type Image; say which of caption"):
        hub(none)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one data set, as an earlier download leaves it."""
    images = class_folders(tmp_path / "images", cat=4, dog=5)
    save_dataset(images, tmp_path / "saved")
    prepared = next((tmp_path / "cache").rglob("imagefolder-train.arrow")).parent
    place = tmp_path / "hub" / "somebody___pets" / "default" / "0.0.0" / "0123abcd"
    shutil.copytree(prepared, place)
    (place / "imagefolder-train.arrow").rename(place / "pets-train.arrow")
    info = json.loads((place / "dataset_info.json").read_text())
    info |= {"config_name": "default", "dataset_name": "pets", "builder_name": "parquet"}
    (place / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "hub"))
    return images


@pytest.mark.usefixtures("no_network")
def test_what_is_cached_is_read_without_asking_anybody(cache: Path) -> None:
    for name in ("hf://somebody/pets", "hf://datasets/somebody/pets"):
        cached, plain = hub(name), folder(cache)
        assert all(same_images(one, other) for one, other in zip(cached[:4], plain[:4], strict=True))


@pytest.mark.usefixtures("no_network", "cache")
def test_what_is_not_cached_is_not_fetched_unasked() -> None:
    with pytest.raises(InputError, match=r"not in this machine's cache .*--set data\.download=true"):
        hub("hf://somebody/birds")
    with pytest.raises(InputError, match="hf://OWNER/NAME"):
        hub("hf://some/body/pets")


def test_a_download_is_asked_for_and_runs_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the package is asked: the repository, its configuration and its revision, and nothing else."""
    saved = datasets.load_from_disk(str(save_dataset(class_folders(tmp_path / "i", a=3, b=3), tmp_path / "saved")))
    asked = []

    def load_dataset(*given: object, **options: object) -> Any:
        asked.append((given, options))
        return datasets.DatasetDict(train=saved)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert hub("hf://a/b", config="c", revision="d", download=True).train_counts() == [3, 3]
    assert asked == [(("a/b", "c"), {"revision": "d", "streaming": False})]

    def offline(*_: object, **__: object) -> NoReturn:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(InputError, match=r"hf://a/b cannot be loaded \(Couldn't reach 'a/b' on the Hub\)"):
        hub("hf://a/b", download=True)


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'evensphere\[hub\]'"):
        hub("hf://a/b")


# --- streaming --------------------------------------------------------------------------------------------------------


def test_a_streamed_data_set_gives_the_bytes_of_its_files(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "images", a=4, b=5)
    splits = hub(save_dataset(images, tmp_path / "saved"), streaming=True)
    stream = splits.pretrain
    assert splits == Splits(stream)
    assert isinstance(stream, Stream)
    assert (len(stream), len(stream.shards)) == (9, 9)
    sent = sorted(sample.data for sample in stream.epoch(0, 0))
    assert sent == sorted(file.read_bytes() for file in images.rglob("*.png"))


def test_a_streamed_row_may_name_a_file_and_may_be_empty(tmp_path: Path) -> None:
    file = write(tmp_path / "a.png")
    rows = datasets.Dataset.from_dict({"image": [{"path": str(file)}, None]}, datasets.Features(image=datasets.Image()))
    stream = HubStream("named", rows.to_iterable_dataset(num_shards=1), "image", 2, 3, 1)
    assert [sample.data for sample in stream.epoch(0, 0)] == [file.read_bytes(), b""]


def test_a_hub_that_breaks_off_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows() -> Any:
        yield {"image": {"bytes": png(0)}}
        raise ConnectionError("gone")

    pieces = datasets.IterableDataset.from_generator(rows, features=datasets.Features(image=datasets.Image()))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.IterableDatasetDict(train=pieces))
    with pytest.raises(InputError, match=r"does not tell how many images it has; .* data\.samples=N"):
        hub("hf://a/b", streaming=True)
    stream = hub("hf://a/b", streaming=True, samples=4).pretrain
    assert isinstance(stream, Stream)
    arriving = stream.epoch(0, 0)
    with pytest.raises(InputError, match="go on with --resume"):
        list(arriving)
