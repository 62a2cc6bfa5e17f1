"""Images kept decoded: the same pixels as their files', shrunk where they are larger than training needs."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from tests.data.image_files import locations, write

from evensphere.data.crop import crop_boxes, cut_crop
from evensphere.data.folder import folder
from evensphere.data.packed import ShrunkSource, as_array, pack_in_memory, shrink, training_side
from evensphere.data.scan import readable
from evensphere.data.source import Source, UnreadableImage, take


def folder_of(root: Path, *sizes: tuple[int, int]) -> Source:
    noise = np.random.RandomState(0)
    root.mkdir(parents=True, exist_ok=True)
    for i, (width, height) in enumerate(sizes):
        Image.fromarray(noise.randint(0, 256, (height, width, 3)).astype(np.uint8)).save(root / f"{i:03}.png")
    return folder(root).pretrain


def test_the_short_side_is_shrunk_and_nothing_is_enlarged() -> None:
    image = torch.randint(0, 256, (3, 40, 90)).to(torch.uint8)
    assert shrink(image, 20).shape == (3, 20, 45)
    assert shrink(image.mT, 20).shape == (3, 45, 20)
    assert shrink(image, 40) is image
    assert shrink(image, 100) is image


def test_crops_of_shrunk_photos_differ_little() -> None:
    """What `training_side` promises, on two real photos: of crops of a quarter of the area or more, and of all."""
    size = 64
    large, all_of_them = [], []
    for photo in load_sample_images().images:
        image = torch.tensor(photo).permute(2, 0, 1)
        small = shrink(image, training_side(size))
        height, width = small.shape[1:]
        for box in crop_boxes(0, 0, 0, torch.arange(200), height, width, (0.08, 1.0)):
            original = cut_crop(image, (box * image.shape[1] / height).round().long(), size, "bicubic").float()
            error = float((cut_crop(small, box, size, "bicubic").float() - original).abs().mean())
            all_of_them.append(error)
            if box[2] * box[3] >= height * width / 4:
                large.append(error)
    assert np.mean(large) < 3.5  # levels of 255, most of it because boxes are whole pixels in both
    assert np.mean(all_of_them) < 4


def test_packed_images_are_the_shrunk_ones(tmp_path: Path) -> None:
    source = folder_of(tmp_path, (30, 20), (8, 9), (100, 10), (24, 24))
    packed, unreadable = pack_in_memory(source, 12, 2, None)
    assert unreadable == []
    for i in range(4):
        assert packed.read(i).equal(shrink(source.read(i), 12))
        assert packed.read(i).equal(ShrunkSource(source, 12).read(i))
        assert packed.location(i) == source.location(i)
    assert packed.read(1).equal(source.read(1)), "small ones to the bit"
    with pytest.raises(IndexError):
        packed.read(4)


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "000.jpg").write_text("no image")
    source = folder_of(tmp_path / "x", (5, 5), (6, 6))
    for file in locations(source):
        (tmp_path / "x" / file).rename(tmp_path / f"1{file}")
    source = folder(tmp_path).pretrain
    seen: list[int] = []
    packed, unreadable = pack_in_memory(source, 12, 1, None, lambda i, image: seen.append(i))
    assert [i for i, _ in unreadable] == [0]
    assert seen == [1, 2]
    with pytest.raises(UnreadableImage):
        packed.read(0)
    kept = readable(packed, unreadable)
    assert [kept.location(i) for i in range(2)] == [source.location(i) for i in (1, 2)]
    assert kept.read(0).equal(source.read(1))


def test_small_images_of_one_size_become_one_tensor(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "same", *[(8, 6)] * 5)
    packed, _ = pack_in_memory(source, 12, 1, None)
    array = as_array(take(packed, torch.tensor([3, 1])))
    assert array is not None
    assert array.images.is_contiguous()
    assert array.read(0).equal(source.read(3))
    assert len(array) == 2
    for other in (folder_of(tmp_path / "sizes", (8, 6), (6, 8)), folder_of(tmp_path / "large", *[(130, 130)] * 2)):
        assert as_array(pack_in_memory(other, 200, 1, None)[0]) is None


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    source = folder_of(tmp_path, (30, 20), (8, 9))
    packed, _ = pack_in_memory(source, 12, 1, None)
    copy = pickle.loads(pickle.dumps(packed))
    assert all(copy.read(i).equal(packed.read(i)) for i in range(2))


def test_many_threads_keep_images_apart(tmp_path: Path) -> None:
    for i in range(300):
        write(tmp_path / f"{i:03}.png", (i % 256, i // 256, 0), (5 + i % 7, 4 + i % 3))
    packed, _ = pack_in_memory(folder(tmp_path).pretrain, 100, 4, None)
    for i in range(300):
        image = packed.read(i)
        assert image.shape == (3, 4 + i % 3, 5 + i % 7)
        assert (image[0] == i % 256).all()
        assert (image[1] == i // 256).all()
