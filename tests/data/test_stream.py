"""What every stream must satisfy: an epoch's images in an order of its own, the same for whoever reads it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.image_files import class_folders
from tests.data.stored import png_files, save_dataset, write_shards
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.hub import hub
from evensphere.data.shards import shards
from evensphere.data.source import UnreadableImage
from evensphere.data.stream import Arrived, Sample, Stream
from evensphere.data.stream_loader import StreamLoader
from evensphere.errors import InputError
from evensphere.ops import collective

VIEWS = Views(8)


class Numbers(Stream):
    """Shards of numbers that are no images; a negative one is where a shard breaks off."""

    def __init__(self, *content: list[int], samples: int = 12, shuffle_buffer: int = 3) -> None:
        super().__init__("numbers", [f"s{k}" for k in range(len(content))], samples, 3, shuffle_buffer)
        self.content = content

    def read_shard(self, k: int) -> Iterator[Sample]:
        for number in self.content[k]:
            if number < 0:
                raise UnreadableImage("cut off")
            yield Sample(str(number), b"")


def numbers(stream: Stream, seed: int = 0, epoch: int = 0) -> list[int]:
    return [int(sample.location) for sample in stream.epoch(seed, epoch)]


# --- the order --------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 99))
def test_an_epoch_holds_every_image_once(sizes: list[int], buffer: int, epoch: int) -> None:
    total = sum(sizes)
    if total == 0:
        return
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    content = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]
    stream = Numbers(*content, samples=total, shuffle_buffer=buffer)
    seen = numbers(stream, epoch=epoch)
    assert sorted(seen) == list(range(total))
    assert seen == numbers(stream, epoch=epoch)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    stream = Numbers([0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11])
    orders = [numbers(stream, seed, epoch) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


def test_without_a_buffer_each_shard_keeps_its_order() -> None:
    content = [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10, 11]]
    stream = Numbers(*content, shuffle_buffer=1)
    firsts = set()
    for epoch in range(20):
        seen = numbers(stream, epoch=epoch)
        firsts.add(seen[0])
        assert sum(after - before != 1 for before, after in pairwise(seen)) <= 2
    assert firsts == {0, 3, 7}, "the order of the shards is drawn"


def test_a_buffer_mixes_evenly() -> None:
    """With everything in the buffer, every image is equally often at every place: chi-squared of 12 x 12 cells."""
    stream = Numbers(list(range(12)), shuffle_buffer=12)
    counts = torch.zeros(12, 12)
    for epoch in range(2400):
        counts[torch.arange(12), torch.tensor(numbers(stream, epoch=epoch))] += 1
    chi_squared = float(((counts - 200) ** 2 / 200).sum())
    assert 70 < chi_squared < 190, "121 degrees of freedom, five standard deviations"


def test_an_epoch_may_be_longer_or_shorter_than_the_shards() -> None:
    content = [[0, 1, 2], [3, 4]]
    longer = numbers(Numbers(*content, samples=12))
    assert sorted(longer[:5]) == sorted(longer[5:10]) == [0, 1, 2, 3, 4]
    assert longer[:5] != longer[5:10], "the second pass has an order of its own"
    shorter = [numbers(Numbers(*content, samples=3), epoch=epoch) for epoch in range(20)]
    assert {number for epoch in shorter for number in epoch} == {0, 1, 2, 3, 4}


def test_a_shard_that_breaks_off_is_remembered_with_the_reason() -> None:
    stream = Numbers([0, 1, -1, 2], [3, 4], samples=4)
    assert sorted(numbers(stream)) == [0, 1, 3, 4]
    assert stream.skipped == {"s0": "cut off"}
    with pytest.raises(InputError, match=r"No image was found in the 2 shard\(s\) of numbers; s\d: cut off"):
        numbers(Numbers([-1], [-1]))


@pytest.mark.parametrize("option", ["samples", "shuffle_buffer"])
def test_sizes_are_at_least_one(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} = 0 was given"):
        Numbers([0], **{option: 0})


# --- every kind of stream ---------------------------------------------------------------------------------------------


def tar_shards(root: Path) -> Stream:
    return the_stream(shards(write_shards(root / "shards", png_files(root / "images"), per_shard=5)).pretrain)


def saved_rows(root: Path) -> Stream:
    return the_stream(hub(save_dataset(root / "images", root / "saved"), streaming=True).pretrain)


def the_stream(source: object) -> Stream:
    assert isinstance(source, Stream)
    return source


@pytest.fixture(scope="module", params=[tar_shards, saved_rows])
def stream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stream:
    """23 images, of which number 5 of the cats cannot be read."""
    root = tmp_path_factory.mktemp("stream")
    class_folders(root / "images", cat=11, dog=12)
    (root / "images" / "cat" / "5.png").write_bytes(b"no image")
    make: Callable[[Path], Stream] = request.param
    return make(root)


def test_an_epoch_is_as_long_as_it_says(stream: Stream) -> None:
    samples = list(stream.epoch(0, 0))
    assert len(samples) == len(stream) == 23
    assert len({sample.location for sample in samples}) == 23
    assert samples == list(stream.epoch(0, 0))
    assert samples != list(stream.epoch(0, 1))


def test_there_are_no_labels_and_no_numbers(stream: Stream) -> None:
    assert stream.class_names is None
    for number in (stream.read, stream.location):
        with pytest.raises(InputError, match="is a stream, whose images have no numbers"):
            number(0)


def test_a_copy_reads_the_same(stream: Stream) -> None:
    assert list(pickle.loads(pickle.dumps(stream)).epoch(3, 1)) == list(stream.epoch(3, 1))


def test_the_first_images_are_those_that_can_be_read(stream: Stream) -> None:
    assert len(stream.first_images(30)) == 22
    assert all(image.shape == (3, 6, 8) for image in stream.first_images(4))


def test_workers_change_nothing_and_unreadable_images_are_left_out(stream: Stream) -> None:
    runs = []
    for workers in (0, 1, 2):
        loader = StreamLoader(stream, 5, VIEWS, seed=0, workers=workers)
        assert loader.steps_per_epoch == 4, "whole batches only"
        runs.append([batch for _, batch in loader.batches(3, 11)])
        assert list(loader.skipped.values()) == ["not an image, or of a kind Pillow cannot read"]
    for batches in zip(*runs, strict=True):
        for batch in batches:
            assert torch.equal(batch.index, batches[0].index)
            assert all(torch.equal(a, b) for a, b in zip(batch.images, batches[0].images, strict=True))
            assert [view.shape for view in batch.images] == [(len(batch.index), 3, 8, 8)] * 2
    assert sorted(len(batch.index) for batch in runs[0])[:2] in ([4, 4], [4, 5], [5, 5])


def test_a_small_last_batch_with_an_unreadable_image_stops_nothing(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", cat=12)
    for i in range(2):
        (tmp_path / "images" / "cat" / f"{i}.png").write_bytes(b"no image")
    loader = StreamLoader(tar_shards(tmp_path), 5, VIEWS, seed=0, workers=0)
    assert len(list(loader.batches(0, 40))) == 40, "whichever images an epoch ends with"


def test_views_are_addressed_by_the_place_in_the_epoch(stream: Stream) -> None:
    """The crops are those that the views cut for that place, of the image that the epoch has there."""
    loader = StreamLoader(stream, 5, VIEWS, seed=2, workers=0)
    _, batch = list(loader.batches(0, 6))[-1]  # the second of the second epoch
    samples = list(stream.epoch(2, 1))
    arrived = Arrived("epoch", dict(enumerate(samples)), 3)
    assert set(batch.index.tolist()) <= {5, 6, 7, 8, 9}
    for k, place in enumerate(batch.index.tolist()):
        expected = VIEWS.crops([arrived.read(place)], 1, 0, torch.tensor([place]))[0]
        assert torch.equal(batch.images[0][k], expected)


def test_more_broken_images_than_whole_ones_are_not_trained_on(tmp_path: Path) -> None:
    class_folders(tmp_path / "images", cat=20)
    for i in range(11):
        (tmp_path / "images" / "cat" / f"{i}.png").write_bytes(b"no image")
    loader = StreamLoader(tar_shards(tmp_path), 10, VIEWS, seed=0, workers=0)
    with pytest.raises(
        InputError, match=r"11 of the first 20 images of .*/shards cannot be read, the first being shard-"
    ):
        list(loader.batches(0, 2))


@pytest.mark.parametrize("first", [0, 1, 4, 5, 9, 12])
def test_starting_later_sees_the_same_batches(stream: Stream, first: int) -> None:
    def batches(first_step: int) -> list[tuple[int, list[int], Tensor]]:
        loader = StreamLoader(stream, 5, VIEWS, seed=0, workers=0)
        return [(step, batch.index.tolist(), batch.images[0]) for step, batch in loader.batches(first_step, 13)]

    for one, other in zip(batches(first), batches(0)[first:], strict=True):
        assert one[:2] == other[:2]
        assert torch.equal(one[2], other[2])


def test_processes_share_a_batch_by_place(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [batch for _, batch in StreamLoader(stream, 6, VIEWS, seed=0, workers=0).batches(1, 6)]
    monkeypatch.setattr(collective, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(collective, "rank", lambda rank=rank: rank)
        loader = StreamLoader(stream, 6, VIEWS, seed=0, workers=0)
        shares.append([batch for _, batch in loader.batches(1, 6)])
    for alone, first, second in zip(whole, *shares, strict=True):
        together = torch.cat([first.index, second.index])
        assert len(together) // 2 * 2 == len(together) or len(together) < 6
        assert set(together.tolist()) <= set(alone.index.tolist())
        assert len(alone.index) - len(together) in (0, 1), "an odd last image is left out"
        crops = dict(zip(alone.index.tolist(), alone.images[0], strict=True))
        for place, crop in zip(together.tolist(), torch.cat([first.images[0], second.images[0]]), strict=True):
            assert torch.equal(crop, crops[place])
