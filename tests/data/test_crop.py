"""Crops against torchvision: the boxes' distribution, the pixels' values, and one geometry for batch and workers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from evensphere.data.crop import crop_boxes, cut_crop, resize_and_center, resized_crop

RATIO = (3 / 4, 4 / 3)


def boxes_of(height: int, width: int, scale: tuple[float, float], count: int = 4000, epoch: int = 0) -> Tensor:
    return crop_boxes(7, epoch, 0, torch.arange(count), height, width, scale, RATIO)


def theirs(height: int, width: int, scale: tuple[float, float], count: int = 4000) -> Tensor:
    image = torch.empty(1, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        boxes = [RandomResizedCrop.get_params(image, list(scale), list(RATIO)) for _ in range(count)]
    return torch.tensor(boxes)


# --- boxes


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    low=st.floats(0.01, 1.0),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_boxes_lie_inside_the_image(height: int, width: int, low: float, share: float, seed: int) -> None:
    scale = (low, low + share * (1 - low))
    top, left, h, w = crop_boxes(seed, 1, 0, torch.arange(50), height, width, scale, RATIO).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(32, 32, (0.1, 1.0)), (96, 64, (0.08, 1.0)), (20, 61, (0.5, 1.0))]
)
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]) -> None:
    ours, reference = boxes_of(height, width, scale).double(), theirs(height, width, scale).double()

    def statistics(boxes: Tensor) -> Tensor:
        top, left, h, w = boxes.unbind(1)
        log_ratio = (w / h).log()
        place = torch.stack([top / (height - h).clamp(min=1), left / (width - w).clamp(min=1)])
        return torch.stack([h * w / (height * width), log_ratio, log_ratio.square(), *place, *place.square()])

    a, b = statistics(ours), statistics(reference)
    error = ((a.var(1) + b.var(1)) / len(ours)).sqrt()
    assert ((a.mean(1) - b.mean(1)).abs() <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(("height", "width"), [(100, 1), (1, 100), (90, 10), (10, 90), (1, 1)])
def test_images_too_narrow_for_any_proposal_get_torchvisions_central_box(height: int, width: int) -> None:
    ours, reference = boxes_of(height, width, (0.9, 1.0), 20), theirs(height, width, (0.9, 1.0), 20)
    assert torch.equal(ours, reference)
    assert (ours == ours[0]).all()


def test_a_tenth_of_the_image_is_reached_at_both_ends_of_the_scale() -> None:
    _, _, h, w = boxes_of(64, 64, (0.1, 0.9)).unbind(1)
    share = h * w / 64**2
    assert 0.09 < share.min() < 0.12
    assert 0.85 < share.max() < 0.92


def test_an_image_alone_gets_the_box_it_gets_in_any_batch() -> None:
    index = torch.randint(0, 10**6, (64,), generator=torch.Generator().manual_seed(0))
    heights, widths = index % 50 + 10, index % 37 + 12
    together = crop_boxes(3, 5, 1, index, heights, widths, (0.1, 1.0))
    for i in range(64):
        alone = crop_boxes(3, 5, 1, index[i : i + 1], int(heights[i]), int(widths[i]), (0.1, 1.0))
        assert torch.equal(alone[0], together[i])
    order = torch.arange(64).flip(0)
    assert torch.equal(crop_boxes(3, 5, 1, index[order], heights[order], widths[order], (0.1, 1.0)), together[order])


@pytest.mark.parametrize("address", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_seed_epoch_and_view_change_the_boxes(address: tuple[int, int, int]) -> None:
    index = torch.arange(100)
    changed = crop_boxes(*address, index, 64, 64, (0.1, 1.0)) != crop_boxes(0, 0, 0, index, 64, 64, (0.1, 1.0))
    assert changed.any(1).float().mean() > 0.95


# --- pixels


def images(kind: str, height: int, width: int, count: int = 6, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    noise = torch.rand(count, channels, height, width, generator=generator)
    return {"noise": noise, "black": noise * 0, "white": noise * 0 + 1, "grey": noise * 0 + 0.5}[kind]


def reference_crop(image: Tensor, box: Tensor, size: int, interpolation: str, flip: bool) -> Tensor:
    top, left, height, width = box.tolist()
    crop: Tensor = tv.resized_crop(image, top, left, height, width, [size, size], interpolation, antialias=True)
    return crop.flip(-1) if flip else crop


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["noise", "black", "white", "grey"])
@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (40, 56, 16), (9, 13, 24), (120, 90, 20)])
def test_resized_crop_equals_torchvision(kind: str, height: int, width: int, size: int, interpolation: str) -> None:
    batch = images(kind, height, width, 8)
    boxes = crop_boxes(1, 0, 0, torch.arange(8), height, width, (0.05, 1.0), (0.5, 2.0))
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height - 1, 0, 1, width])
    boxes[2] = torch.tensor([0, width - 1, height, 1])
    boxes[3] = torch.tensor([height // 2, width // 2, 1, 1])
    flip = torch.arange(8) % 2 == 1
    ours = resized_crop(batch, boxes, size, interpolation, flip)
    assert ours.dtype == torch.float32
    for i in range(8):
        # in float64, where torchvision's own rounding is out of the comparison
        expected = reference_crop(batch[i].double(), boxes[i], size, interpolation, bool(flip[i]))
        torch.testing.assert_close(ours[i].double(), expected, rtol=0, atol=1e-5)


def test_without_flip_nothing_is_mirrored() -> None:
    batch = images("noise", 12, 12)
    whole = torch.tensor([[0, 0, 12, 12]]).expand(6, 4)
    torch.testing.assert_close(resized_crop(batch, whole, 12), batch, rtol=0, atol=1e-6)
    mirrored = resized_crop(batch, whole, 12, flip=torch.ones(6, dtype=torch.bool))
    torch.testing.assert_close(mirrored, batch.flip(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_outside_the_box_do_not_matter(interpolation: str) -> None:
    batch = images("noise", 30, 30, 1)
    box = torch.tensor([[7, 3, 11, 14]])
    changed = torch.full_like(batch, 1e3)
    changed[:, :, 7:18, 3:17] = batch[:, :, 7:18, 3:17]
    assert torch.equal(resized_crop(batch, box, 8, interpolation), resized_crop(changed, box, 8, interpolation))


def test_memory_format_makes_no_difference() -> None:
    batch, boxes = images("noise", 20, 30), crop_boxes(0, 0, 0, torch.arange(6), 20, 30, (0.1, 1.0))
    scattered = batch.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(resized_crop(scattered, boxes, 9), resized_crop(batch, boxes, 9))


def test_large_images_keep_their_accuracy() -> None:
    batch = images("noise", 3, 5000, 2)
    boxes = torch.tensor([[0, 100, 3, 4801], [0, 4321, 3, 333]])
    ours = resized_crop(batch, boxes, 50)
    for i in range(2):
        expected = reference_crop(batch[i].double(), boxes[i], 50, "bilinear", False)
        torch.testing.assert_close(ours[i].double(), expected, rtol=0, atol=1e-5)


def test_uint8_comes_out_in_0_to_1_for_any_number_of_channels() -> None:
    for channels in (1, 3, 4):
        batch = (images("noise", 20, 20, 4, channels) * 256).to(torch.uint8)
        boxes = crop_boxes(0, 0, 0, torch.arange(4), 20, 20, (0.1, 1.0))
        ours = resized_crop(batch, boxes, 11)
        torch.testing.assert_close(ours, resized_crop(batch.float() / 255, boxes, 11), rtol=0, atol=1e-6)
        assert ours.min() >= 0
        assert ours.max() <= 1 + 1e-6


# --- one image at a time


# Half a level is lost at each of two roundings, the first passed on by weights whose absolute sum is 1 (bicubic: 1.25).
@pytest.mark.parametrize(("interpolation", "levels"), [("bilinear", 1.0), ("bicubic", 1.125)])
def test_a_workers_crop_is_the_batchs_crop_up_to_rounding(interpolation: str, levels: float) -> None:
    batch = (tv.gaussian_blur(images("noise", 50, 44, 20), 7) * 255).round().to(torch.uint8)
    boxes = crop_boxes(2, 0, 0, torch.arange(20), 50, 44, (0.08, 1.0))
    device = resized_crop(batch, boxes, 24, interpolation).clamp_(0, 1)
    worker = torch.stack([cut_crop(batch[i], boxes[i], 24, interpolation) for i in range(20)])
    assert worker.dtype == torch.uint8
    assert (worker / 255 - device).abs().max() <= (levels + 0.02) / 255


def test_resize_and_center_leaves_images_of_that_size_alone() -> None:
    batch = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(resize_and_center(batch, 8), batch)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 21), (21, 40), (5, 9), (1, 3), (16, 30), (300, 1)])
def test_resize_and_center_equals_pillow(height: int, width: int) -> None:
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    expected = tv.pil_to_tensor(tv.center_crop(tv.resize(tv.to_pil_image(image), [16]), [16, 16]))
    central = resize_and_center(image, 16)
    assert central.shape == (3, 16, 16)
    assert (central.int() - expected.int()).abs().max() <= 1


def test_resize_and_center_shows_the_middle() -> None:
    image = torch.zeros(1, 20, 60, dtype=torch.uint8)
    image[:, :, 20:40] = 200
    assert (resize_and_center(image, 20) == 200).all()
    assert torch.equal(resize_and_center(image.mT, 20), resize_and_center(image, 20))
