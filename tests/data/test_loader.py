"""Batches: every image once an epoch, the same from wherever one starts, whoever decodes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Source, UnreadableImage
from evensphere.errors import InputError


class FileLike(Source):
    """Images of different sizes that have to be decoded; image 5 cannot be."""

    name, channels, image_size, class_names = "files", 3, None, None

    def __len__(self) -> int:
        return 23

    def read(self, i: int) -> Tensor:
        if i == 5:
            raise UnreadableImage("cut off")
        generator = torch.Generator().manual_seed(i)
        return torch.randint(0, 256, (3, 10 + i, 12), generator=generator).to(torch.uint8)

    def location(self, i: int) -> str:
        return f"{i}.jpg"

    def labels(self) -> None:
        return None


VIEWS = Views(8)


def array_loader(count: int, batch_size: int, seed: int = 0) -> Loader:
    images = torch.arange(count).to(torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    return Loader(ArraySource("array", images.contiguous()), batch_size, VIEWS, seed)


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(23, 5, 5), (20, 5, 4), (21, 5, 4), (7, 100, 1)])
def test_an_epoch_holds_every_image_once_but_no_batch_of_one(count: int, batch_size: int, steps: int) -> None:
    loader = array_loader(count, batch_size)
    assert loader.steps_per_epoch == steps
    batches = [batch for _, batch in loader.batches(0, steps)]
    seen = torch.cat([batch.index for batch in batches])
    assert len(seen.unique()) == len(seen) == count - (count % loader.batch_size == 1)
    for batch in batches:
        assert isinstance(batch.images, Tensor)
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.index), "pixels and numbers belong together"


def test_starting_later_sees_the_same_batches() -> None:
    whole = [batch.index.tolist() for _, batch in array_loader(23, 5).batches(0, 15)]
    assert [batch.index.tolist() for _, batch in array_loader(23, 5).batches(8, 15)] == whole[8:]
    assert whole[:5] != whole[5:10], "every epoch has an order of its own"
    assert [batch.index.tolist() for _, batch in array_loader(23, 5, seed=1).batches(0, 15)] != whole


def test_workers_change_nothing_and_unreadable_images_are_left_out() -> None:
    runs = []
    for workers in (0, 1, 2):
        loader = Loader(FileLike(), 5, VIEWS, seed=0, workers=workers)
        runs.append([batch for _, batch in loader.batches(3, 10)])
        assert loader.skipped == {"5.jpg": "cut off"}
    for batches in zip(*runs, strict=True):
        for batch in batches:
            assert 5 not in batch.index
            assert torch.equal(batch.index, batches[0].index)
            assert all(torch.equal(a, b) for a, b in zip(batch.images, batches[0].images, strict=True))
            assert [view.shape for view in batch.images] == [(len(batch.index), 3, 8, 8)] * 2


def test_workers_cut_local_views_too() -> None:
    loader = Loader(FileLike(), 5, Views(8, local_views=3, local_size=4), seed=0, workers=0)
    _, batch = next(loader.batches(0, 1))
    assert [tuple(view.shape[2:]) for view in batch.images] == [(8, 8)] * 2 + [(4, 4)] * 3


def test_a_disk_that_goes_away_is_one_sentence() -> None:
    class Gone(FileLike):
        def read(self, i: int) -> Tensor:
            raise UnreadableImage("no such file")

    with pytest.raises(InputError, match="is the data still where it was"):
        list(Loader(Gone(), 5, VIEWS, seed=0, workers=0).batches(0, 3))


@pytest.mark.parametrize(("processes", "what"), [(1, "Fewer than two images of a batch"), (2, "No image of a process")])
def test_a_batch_that_cannot_be_read_is_said_by_what_a_process_needs(
    monkeypatch: pytest.MonkeyPatch, processes: int, what: str
) -> None:
    class Gone(FileLike):
        def read(self, i: int) -> Tensor:
            raise UnreadableImage("gone")

    monkeypatch.setattr("evensphere.ops.collective.world_size", lambda: processes)
    with pytest.raises(InputError, match=f"{what}.* could be read, the first reason being: gone; is the data"):
        next(Loader(Gone(), 4, VIEWS, 0, workers=0).batches(0, 1))


def test_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        array_loader(10, 1)
    with pytest.raises(InputError, match="at least 2"):
        array_loader(1, 5)
