"""The views of a CPU: the numbers of torch's operations, whatever the threads and the company of an image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.source import Batch


def batch_of(count: int, height: int, width: int, real: bool = False, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    return Batch(images / 255 if real else images, torch.arange(count))


def both_ways(views: Views, batch: Batch, cropped: bool) -> tuple[Tensor, Tensor]:
    """Pixels in 0..1 by this module and by torch."""
    assert isinstance(batch.images, Tensor)
    drawn = views._draw(batch.index, 0, 0, None)
    taps = None if cropped else views._taps(batch.images, drawn, 0, 0)
    ours = views._cut_and_coloured(batch.images, taps, drawn, normalise=False)
    return ours, views._coloured(views._cut(batch.images, taps, drawn), drawn)


@given(
    jitter=st.tuples(*[st.sampled_from([0.0, 0.4, 1.5])] * 3, st.sampled_from([0.0, 0.1, 0.5])),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    shape=st.sampled_from([(16, 16), (9, 23), (40, 31)]),
    real=st.booleans(),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=40, deadline=None)
def test_equals_torchs_operations(
    jitter: tuple[float, float, float, float], interpolation: str, shape: tuple[int, int], real: bool, seed: int
) -> None:
    views = Views(16, jitter=jitter, interpolation=interpolation, seed=seed)
    ours, theirs = both_ways(views, batch_of(20, *shape, real, seed), cropped=False)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("size", [16, 7])  # 7 x 7 pixels do not fill eight lanes
def test_crops_are_mirrored_and_coloured_alike(size: int, real: bool) -> None:
    ours, theirs = both_ways(Views(size), batch_of(50, size, size, real), cropped=True)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.fixture(params=[2, 3, 64])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_threads_make_no_difference_to_a_bit(threads: int) -> None:
    views, batch = Views(16), batch_of(37, 20, 20)
    shared = views(batch, 0)
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(shared, views(batch, 0), strict=True))


def test_blur_leaves_the_images_without_it_alone() -> None:
    """With it the batch is finished by torch; an image must not see what its neighbours meet."""
    batch = batch_of(30, 24, 24)
    blurred, never = Views(24, blur=0.5, num_views=1), Views(24, num_views=1)
    spared = ~blurred._draw(batch.index, 0, 0, None).blurred
    assert 0 < spared.sum() < 30
    assert torch.equal(blurred(batch, 0)[0][spared], never(batch, 0)[0][spared])


def test_gray_has_three_equal_channels_and_normalisation_is_exact() -> None:
    batch = batch_of(8, 16, 16)
    views = Views(16, gray=1.0, num_views=1)
    drawn = views._draw(batch.index, 0, 0, None)
    taps = views._taps(batch.images, drawn, 0, 0)  # type: ignore[arg-type]
    pixels = views._cut_and_coloured(batch.images, taps, drawn, normalise=False)  # type: ignore[arg-type]
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert torch.equal(pixels[:, 1], pixels[:, 2])
    assert torch.equal(views(batch, 0)[0], views._normalise(pixels.clone())), "in one go or one after the other"
