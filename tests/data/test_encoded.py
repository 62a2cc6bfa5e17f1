"""Sources of files: their channels and bits, found out or said."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.image_files import write

from evensphere.data import encoded
from evensphere.data.augment import Views
from evensphere.data.decode import count_channels
from evensphere.data.folder import folder
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Subset


def grey(path: Path, level: int = 9) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), level).save(path)


def test_grey_files_make_a_grey_source(tmp_path: Path) -> None:
    for i in range(3):
        grey(tmp_path / f"{i}.png")
    source = folder(tmp_path).pretrain
    assert source.channels == 1
    assert source.read(0).shape == (1, 6, 8)
    write(tmp_path / "colour.png")
    assert folder(tmp_path).pretrain.channels == 3
    assert folder(tmp_path).pretrain.read(0).shape == (3, 6, 8)
    assert folder(tmp_path, channels=1).pretrain.channels == 1, "said is not asked"


def test_what_cannot_be_read_has_no_say(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    assert folder(tmp_path).pretrain.channels == 3
    grey(tmp_path / "b.png")
    assert folder(tmp_path).pretrain.channels == 1


def test_many_channels_win(tmp_path: Path) -> None:
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.zeros((8, 9, 6), np.uint8))
    assert folder(tmp_path).pretrain.channels == 6


def test_some_headers_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(100):
        grey(tmp_path / f"{i:03}.png")
    looked: list[str] = []

    def look(file: Path) -> int:
        looked.append(str(file))
        return count_channels(file)

    monkeypatch.setattr(encoded, "count_channels", look)
    source = folder(tmp_path).pretrain
    assert not looked, "not before it is asked"
    assert source.channels == source.channels == 1
    assert len(set(looked)) == len(looked) == 64
    assert looked != sorted(looked)
    assert pickle.loads(pickle.dumps(source)).channels == 1
    assert len(looked) == 64, "a worker's copy knows"
    again = list(looked)
    looked.clear()
    assert folder(tmp_path).pretrain.channels == 1
    assert looked == again


def test_all_splits_are_read_like_the_training_images(tmp_path: Path) -> None:
    for name in ("train", "test"):
        for i in range(4):
            grey(tmp_path / name / f"class{i % 2}" / f"{i}.png")
    write(tmp_path / "test" / "class0" / "colour.png")
    splits = folder(tmp_path)
    assert splits.test is not None
    assert splits.pretrain.channels == splits.test.channels == 1


def deep(root: Path, count: int = 6) -> Path:
    """Grey images of 16 bits with fewer than 256 levels' worth of contrast."""
    for i in range(count):
        values = 1000 + np.random.RandomState(i).randint(0, 200, (20, 24)).astype(np.uint16)
        root.mkdir(exist_ok=True)
        Image.fromarray(values).save(root / f"{i}.png")
    return root


def test_16_bits_reach_the_views(tmp_path: Path) -> None:
    """A contrast that 8 bits cannot hold: two levels of 256 become the many that were written."""
    views = Views(16, jitter=(0, 0, 0, 0), gray=0, mean=(0.0,), std=(1.0,), flip=0.5)
    levels: dict[int, list[int]] = {}
    for bits in (8, 16):
        source = folder(deep(tmp_path / "deep"), bits=bits).pretrain
        assert (source.bits, source.channels) == (bits, 1)
        assert Subset(source, torch.tensor([0])).bits == bits
        ((_, batch),) = Loader(source, 6, views, seed=0, workers=0).batches(0, 1)
        assert isinstance(batch.images, tuple)
        crops = batch.images[0].clone()
        first, _ = views(batch, 0)
        assert batch.images[0].equal(crops), "views leave the batch alone"
        assert first.dtype == torch.float32
        assert 0.014 < float(first.min()) <= float(first.max()) < 0.02
        for seen in (first, views.plain([source.read(0)]), views.weak([source.read(0)], torch.tensor([0]))):
            levels.setdefault(bits, []).append(len(seen.unique()))
    assert max(levels[8]) <= 3
    assert min(levels[16]) > 100


def test_workers_crops_of_floats_are_those_of_the_batch() -> None:
    """One image at a time and by the batch, with cubic overshoot cut off on both sides."""
    images = torch.rand(5, 2, 24, 30).round()
    views = Views(12, interpolation="bicubic", jitter=(0, 0, 0, 0), gray=0, mean=(0.0, 0.0), std=(1.0, 1.0))
    source = ArraySource("floats", images)
    assert source.bits == 16
    ((_, whole),) = Loader(source, 5, views, seed=0).batches(0, 1)
    crops = tuple(torch.stack(views.crops(list(images[whole.index]), 0, view, whole.index)) for view in views.all_views)
    assert all(float(view.min()) >= 0 and float(view.max()) <= 1 for view in crops)
    for one, other in zip(views(whole, 0), views(whole._replace(images=crops), 0), strict=True):
        assert torch.allclose(one, other, atol=2e-3)
