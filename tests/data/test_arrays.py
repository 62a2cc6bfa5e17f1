"""numpy files: every usual shape of them, nothing unpickled, and large ones left on the disk."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.image_files import locations

from evensphere.data import arrays
from evensphere.data.arrays import MappedSource, array
from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Splits
from evensphere.errors import InputError


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def saved(folder: Path, images: Any, name: str = "x.npy") -> Path:
    np.save(folder / name, images)
    return folder / name


@pytest.mark.parametrize(
    ("shape", "layout", "planes"),
    [
        ((3, 8, 9), None, (1, 8, 9)),
        ((3, 8, 9, 3), None, (3, 8, 9)),
        ((3, 8, 9, 1), None, (1, 8, 9)),
        ((3, 3, 8, 9), None, (3, 8, 9)),
        ((3, 12, 64, 32), None, (12, 64, 32)),
        ((3, 3, 9, 3), None, (3, 3, 9)),  # channels last where both would do
        ((3, 3, 9, 3), "NCHW", (3, 9, 3)),
        ((3, 20, 30, 40), "NCHW", (20, 30, 40)),
        ((3, 20, 30, 40), "NHWC", (40, 20, 30)),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_layouts(tmp_path: Path, shape: tuple[int, ...], layout: Any, planes: tuple[int, ...], mapped: bool) -> None:
    images = pixels(*shape)
    source = array(saved(tmp_path, images), layout=layout, memory_mapped=mapped).pretrain
    assert isinstance(source, MappedSource if mapped else ArraySource)
    assert (source.channels, *(source.image_size or ())) == planes
    for i in range(3):
        image = source.read(i)
        assert image.shape == planes
        expected = images[i] if len(shape) == 3 else images[i].reshape(-1, shape[3])
        if image.shape[0] == shape[-1] and len(shape) == 4 and layout != "NCHW":
            assert np.array_equal(image.permute(1, 2, 0).reshape(-1, shape[3]), expected)
        else:
            assert np.array_equal(image.reshape(-1), images[i].reshape(-1))


@pytest.mark.parametrize(
    ("images", "options", "what"),
    [
        (pixels(3, 20, 30, 40), {}, r"shape \[3, 20, 30, 40\]; give .* data\.layout=NHWC or NCHW"),
        (pixels(3, 20), {}, r"shape \[3, 20\]"),
        (np.uint8(3), {}, r"shape \[\]"),
        (pixels(3, 8, 8), {"layout": "NHWC"}, "which is not NHWC"),
        (pixels(0, 8, 8), {}, "which is not NHW"),
        (pixels(1, 8, 8), {}, "holds one image"),
        (pixels(3, 8, 8).astype(np.uint16), {}, "are uint16; give uint8"),
        (pixels(3, 8, 8) / 255, {}, "are float64; give uint8"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_no_image_is_refused(
    tmp_path: Path, images: Any, options: dict[str, Any], what: str, mapped: bool
) -> None:
    with pytest.raises(InputError, match=what):
        array(saved(tmp_path, images), memory_mapped=mapped, **options)


class Trap:
    """Calls a function when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    objects = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "trap.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "trap.npz", images=objects)
    (tmp_path / "pickled.npy").write_bytes(pickle.dumps(Trap()))
    (tmp_path / "text.npz").write_text("text")
    saved(tmp_path, pixels(3, 8, 8))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:100])
    for name in ("trap.npy", "trap.npz", "pickled.npy", "text.npz", "cut.npy", "nowhere.npy"):
        with pytest.raises(InputError, match=f"{name} cannot be read as a numpy file"):
            array(tmp_path / name)
    with pytest.raises(InputError, match=r"trap\.npy cannot be read as a numpy file"):
        array(tmp_path / "x.npy", labels=str(tmp_path / "trap.npy"))


# --- labels and splits ------------------------------------------------------------------------------------------------


def test_labels_are_numbered_in_their_order(tmp_path: Path) -> None:
    labels = np.repeat([10, 2, 7], 6)
    path = saved(tmp_path, pixels(18, 8, 8))
    splits = array(path, labels=str(saved(tmp_path, labels, "y.npy")))
    assert splits.pretrain.class_names == ("2", "7", "10")
    found = splits.pretrain.labels()
    assert found is not None
    assert found.tolist() == [2] * 6 + [0] * 6 + [1] * 6
    assert splits.test is not None
    assert splits.train_counts() == [6, 6, 6]
    texts = array(path, labels=str(saved(tmp_path, np.array(["b", "a"] * 9), "t.npy"))).pretrain
    assert texts.class_names == ("a", "b")
    for wrong, what in ((labels[:5], "18 images and 5 labels"), (labels / 2, "are float64"), (labels[None], "shape")):
        with pytest.raises(InputError, match=what):
            array(path, labels=str(saved(tmp_path, wrong, "wrong.npy")))
    alike = array(path, labels=str(saved(tmp_path, labels * 0, "zero.npy")))
    assert alike == Splits(alike.pretrain), "one class is none"


@pytest.mark.parametrize("spelling", ["{part}_{kind}", "{kind}_{part}"])
@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y"), ("Data", "Targets")])
def test_splits_are_known_by_their_names(tmp_path: Path, spelling: str, images: str, labels: str) -> None:
    content: dict[str, Any] = {}
    for part, count in (("train", 6), ("val", 4), ("test", 3)):
        content[spelling.format(part=part, kind=images)] = pixels(count, 8, 8)
        content[spelling.format(part=part, kind=labels)] = np.arange(count)[:, None] % 2  # as MedMNIST keeps them
    np.savez_compressed(tmp_path / "set.npz", **content)
    splits = array(tmp_path / "set.npz")
    assert splits.probe is splits.pretrain
    assert splits.validation is not None
    assert splits.test is not None
    assert [len(part) for part in (splits.pretrain, splits.validation, splits.test)] == [6, 4, 3]
    assert locations(splits.test) == [f"set.npz/test[{i}]" for i in range(3)]
    del content[spelling.format(part="test", kind=labels)]
    np.savez(tmp_path / "set.npz", **content)
    splits = array(tmp_path / "set.npz")
    assert splits.validation is None
    assert splits.test is not None
    assert len(splits.test) == 4, "validation is the test set where that has no labels"
    content[spelling.format(part="val", kind=labels)] += 1
    np.savez(tmp_path / "set.npz", **content)
    with pytest.raises(InputError, match="class 2, but training knows no such class"):
        array(tmp_path / "set.npz")


def test_arrays_with_other_names_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", a=pixels(3, 8, 8), b=np.arange(3))
    with pytest.raises(InputError, match="holds arrays called a, b; call the images 'images'"):
        array(tmp_path / "set.npz")


# --- on the disk ------------------------------------------------------------------------------------------------------


@given(count=st.integers(2, 6), height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 4))
def test_an_array_on_the_disk_is_the_array_in_memory(
    tmp_path_factory: pytest.TempPathFactory, count: int, height: int, width: int, channels: int
) -> None:
    path = saved(tmp_path_factory.mktemp("x"), pixels(count, height, width, channels))
    held = array(path, layout="NHWC", memory_mapped=False).pretrain
    mapped = array(path, layout="NHWC", memory_mapped=True).pretrain
    assert locations(held) == locations(mapped)
    for i in range(count):
        assert torch.equal(held.read(i), mapped.read(i))
        assert mapped.read(i).is_contiguous()
    with pytest.raises(IndexError):
        mapped.location(count)


def test_only_large_files_stay_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, pixels(3, 8, 8))
    assert isinstance(array(path).pretrain, ArraySource)
    monkeypatch.setattr(arrays, "_IN_MEMORY", path.stat().st_size)
    assert isinstance(array(path).pretrain, MappedSource)


def test_a_copy_holds_no_pixels_and_workers_read_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path, pixels(64, 16, 16, 3))
    source = array(path, labels=str(saved(tmp_path, np.arange(64) % 2, "y.npy")), memory_mapped=True).pretrain
    pickled = pickle.dumps(source)
    assert len(pickled) < 64 * 16 * 16
    assert pickle.loads(pickled).read(63).equal(source.read(63))
    runs = [list(Loader(source, 8, Views(8), seed=0, workers=workers).batches(0, 3)) for workers in (0, 2)]
    for (_, one), (_, other) in zip(*runs, strict=True):
        assert one.index.equal(other.index)
        assert all(a.equal(b) for a, b in zip(one.images, other.images, strict=True))


def test_labels_beside_arrays_of_several_parts_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train_images=pixels(4, 8, 9), test_images=pixels(2, 8, 9))
    labels = saved(tmp_path, np.arange(4), "y.npy")
    with pytest.raises(InputError, match="arrays for each part"):
        array(tmp_path / "x.npz", labels=str(labels))


def test_the_usual_name_of_a_part_comes_first(tmp_path: Path) -> None:
    parts: dict[str, Any] = {name: pixels(n, 8, 9) for name, n in (("train", 4), ("validation", 3), ("dev", 2))}
    images = {f"{name}_images": one for name, one in parts.items()}
    labels = {f"{name}_labels": np.arange(len(one)) % 2 for name, one in parts.items()}
    np.savez(tmp_path / "x.npz", **images, **labels)  # type: ignore[arg-type]
    splits = array(tmp_path / "x.npz")
    assert splits.test is not None
    assert len(splits.test) == 3


@pytest.mark.parametrize(
    ("numbers", "classes"),
    [
        ([0, 1, -1, 0, 1, 0, 1, -1], None),
        ([-1, 1, 1, -1, 1, 1, -1, 1], ("-1", "1")),
        ([-2, 5, 5, -2, 5, 5, -2, 5], ("-2", "5")),
        ([-1] * 8, None),
    ],
)
def test_minus_one_is_no_class_but_beside_one_alone(
    tmp_path: Path, numbers: list[int], classes: tuple[str, ...] | None
) -> None:
    np.savez(tmp_path / "x.npz", images=pixels(8, 8, 9), labels=np.array(numbers))
    source = array(tmp_path / "x.npz").pretrain
    assert source.class_names == classes
    assert (source.labels() is None) == (classes is None)


def test_a_part_without_labels_is_known_by_what_all_parts_have(tmp_path: Path) -> None:
    """Test images whose labels are kept back are all -1; of two classes -1 and 1 they may well be one."""

    def tested(train: list[int], test: list[int]) -> int:
        images = {"train_images": pixels(len(train), 8, 9), "test_images": pixels(len(test), 8, 9)}
        np.savez(tmp_path / "x.npz", **images, train_labels=np.array(train), test_labels=np.array(test))  # type: ignore[arg-type]
        splits = array(tmp_path / "x.npz")
        return 0 if splits.test is None else len(splits.test)

    assert tested([0, 1, 0, 1], [-1, -1, -1]) == 0
    assert tested([1, 1, 2, 1], [-1, 1, 2]) == 0
    assert tested([-1, 1, 1, -1], [-1, -1, -1]) == 3
