"""The policy against torchvision, operation by operation, and the promise that a view depends on its address alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from evensphere.data.augment import VIEWS, Views, policy_errors
from evensphere.data.crop import crop_boxes
from evensphere.data.source import Batch
from evensphere.errors import InputError
from evensphere.ops.draw import uniform


def pixels_of(count: int = 40, size: int = 16, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def index_of(count: int = 40) -> Tensor:
    return torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:count]


def batch_of(count: int = 40, size: int = 16, channels: int = 3) -> Batch:
    return Batch(pixels_of(count, size, channels), index_of(count))


def everything(**changes: Any) -> Views:
    return Views(**{"size": 16, "blur": 0.5, "solarize": 0.3, **changes})


def own_chance(chances: Any, view: int) -> float:
    """What `blur` and `solarize` say about a view."""
    return float(chances[min(view, len(chances) - 1)] if isinstance(chances, tuple) else chances)


def torchvisions_view(views: Views, image: Tensor, epoch: int, view: int, index: int) -> Tensor:
    """The policy written once more, one image at a time and operation by operation."""

    def draw(purpose: str, count: int) -> list[float]:
        return uniform(views.seed, f"{purpose}/{view}", epoch, torch.tensor([index]), count)[0].tolist()

    height, width = image.shape[1:]
    local = view >= views.num_views
    scale, size = (views.local_scale, views.local_size) if local else (views.scale, views.size)
    box = crop_boxes(views.seed, epoch, view, torch.tensor([index]), height, width, scale, views.ratio)[0]
    x = tv.resized_crop(image.double() / 255, *box.tolist(), [size] * 2, views.interpolation, antialias=True)
    x = x.clamp(0, 1)
    x = tv.horizontal_flip(x) if draw("flip", 1)[0] < views.flip else x
    chance, *rest = draw("jitter", 9)
    if chance < views.jitter_probability:
        low = [max(0.0, 1 - strength) for strength in views.jitter[:3]] + [-views.jitter[3]]
        high = [1 + strength for strength in views.jitter[:3]] + [views.jitter[3]]
        b, c, s, h = (a + (z - a) * u for a, z, u in zip(low, high, rest[:4], strict=True))
        steps = [
            lambda y: tv.adjust_brightness(y, b),
            lambda y: tv.adjust_contrast(y, c),
            lambda y: tv.adjust_saturation(y, s),
            lambda y: tv.adjust_hue(y, h),
        ]
        for step in sorted(range(4), key=lambda i: rest[4 + i]):
            x = steps[step](x)
    x = tv.rgb_to_grayscale(x, 3) if draw("gray", 1)[0] < views.gray else x
    blur, solarize = (own_chance(chances, view) for chances in (views.blur, views.solarize))
    chance, strength = draw("blur", 2)
    x = tv.gaussian_blur(x, 3, 0.1 + 1.9 * strength) if chance < blur else x
    x = tv.solarize(x, 0.5) if draw("solarize", 1)[0] < solarize else x
    normalised: Tensor = tv.normalize(x, list(views.mean), list(views.std))
    return normalised


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_views_equal_the_policy_written_with_torchvision(interpolation: str) -> None:
    batch = batch_of(200)
    views = everything(interpolation=interpolation, size=12, seed=4)
    for view, ours in enumerate(views(batch, 3)):
        for i, index in enumerate(batch.index.tolist()):
            expected = torchvisions_view(views, batch.images[i], 3, view, index)
            error = (ours[i].double() - expected).abs()
            # a pixel within rounding of the solarize threshold may fall on either side of it
            assert (error > 1e-4).float().mean() < 0.01


@given(
    jitter=st.tuples(st.floats(0, 1.5), st.floats(0, 1.5), st.floats(0, 1.5), st.floats(0, 0.5)),
    jitter_probability=st.sampled_from([0.0, 0.5, 1.0]),
    gray=st.sampled_from([0.0, 0.5]),
    blur=st.sampled_from([0.0, 0.5]),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    sizes=st.sampled_from([(16, 16), (9, 14), (20, 8)]),
    count=st.integers(1, 40),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=40, deadline=None)
def test_any_policy_is_torchvisions_operations_one_after_the_other(
    jitter: tuple[float, float, float, float],
    jitter_probability: float,
    gray: float,
    blur: float,
    interpolation: str,
    sizes: tuple[int, int],
    count: int,
    seed: int,
) -> None:
    """Strengths up to where factors reach 0 and most colours are cut, so that the cuts between operations matter."""
    views = Views(
        sizes[1],
        jitter=jitter,
        jitter_probability=jitter_probability,
        gray=gray,
        blur=blur,
        interpolation=interpolation,
        num_views=1,
        seed=seed,
    )
    batch = batch_of(count, sizes[0])
    ours = views(batch, 1)[0]
    expected = torch.stack([torchvisions_view(views, batch.images[i], 1, 0, int(batch.index[i])) for i in range(count)])
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)


# --- the fast policy


def test_the_fast_policy_is_one_affine_map_of_the_cropped_colours() -> None:
    """Fitted to each image's own pixels, the map leaves nothing over where no colour reaches a bound."""
    batch = batch_of(30)
    muted = batch._replace(images=pixels_of(30) // 4 + 96)
    keywords: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "num_views": 1}
    before = Views(16, jitter_probability=0.0, gray=0.0, **keywords)(muted, 0)[0].flatten(2).mT.double()
    after = Views(16, policy="fast", **keywords)(muted, 0)[0].flatten(2).mT.double()
    inside = ((after > 0.001) & (after < 0.999)).all(2).all(1)
    assert inside.sum() > 15
    known = torch.cat([before, torch.ones_like(before[..., :1])], dim=2)[inside]
    fitted = known @ torch.linalg.lstsq(known, after[inside]).solution
    torch.testing.assert_close(fitted, after[inside], rtol=0, atol=1e-5)


def test_without_hue_and_without_colours_that_reach_a_bound_the_fast_policy_is_the_exact_one() -> None:
    batch = batch_of(40)
    muted = batch._replace(images=pixels_of(40) // 4 + 96)
    exact, fast = (Views(16, jitter=(0.1, 0.3, 0.3, 0.0), blur=0.5, policy=p) for p in ("exact", "fast"))
    for a, b in zip(exact(muted, 0), fast(muted, 0), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


def test_policy_errors_are_those_of_the_pixels() -> None:
    images = pixels_of(50)
    views = Views(16, gray=0.0)
    errors = policy_errors(views, images)
    batch = Batch(images, torch.arange(50))
    std = torch.tensor(views.std)[:, None, None]
    difference = torch.stack([(a - b) * std for a, b in zip(views(batch, 0), fast_of(views)(batch, 0), strict=True)])
    assert errors["mean"] == pytest.approx(float(difference.abs().mean()))
    assert errors["max"] == pytest.approx(float(difference.abs().max()))
    assert errors["share_above_8_levels"] == pytest.approx(float((difference.abs() > 8 / 255).float().mean()))
    assert 0 < errors["mean"] < errors["max"] < 1
    assert policy_errors(Views(16, jitter_probability=0.0, gray=0.0), images)["max"] < 1e-6, "but for rounding"
    assert policy_errors(fast_of(views), images) == errors, "whatever the policy of the views that are asked"


def fast_of(views: Views) -> Views:
    return views.with_policy("fast")


def test_views_without_solarize_equal_torchvision_in_every_pixel() -> None:
    batch = batch_of(200)
    views = everything(solarize=0.0)
    for view, ours in enumerate(views(batch, 0)):
        expected = torch.stack(
            [torchvisions_view(views, batch.images[i], 0, view, int(batch.index[i])) for i in range(200)]
        )
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-4)


def test_local_views_equal_torchvision_and_leave_the_full_ones_alone() -> None:
    batch = batch_of(60, size=30)
    views = everything(solarize=0.0, local_views=3, local_size=10, local_scale=(0.1, 0.3))
    with_local, without = views(batch, 2), everything(solarize=0.0)(batch, 2)
    assert [tuple(view.shape[2:]) for view in with_local] == [(16, 16)] * 2 + [(10, 10)] * 3
    assert all(torch.equal(a, b) for a, b in zip(with_local, without, strict=False))
    for view in range(2, 5):
        expected = torch.stack(
            [torchvisions_view(views, batch.images[i], 2, view, int(batch.index[i])) for i in range(60)]
        )
        torch.testing.assert_close(with_local[view].double(), expected, rtol=0, atol=1e-4)
    assert ((with_local[2] - with_local[3]).abs().amax((1, 2, 3)) > 0.1).all(), "each with draws of its own"


@pytest.mark.parametrize(("size", "local"), [(224, 96), (32, 14), (8, 3)])
def test_local_views_have_three_sevenths_of_the_size(size: int, local: int) -> None:
    assert Views(size).local_size == local


def test_each_view_has_its_own_chances_of_blur_and_solarize() -> None:
    batch = batch_of(100)
    views = everything(blur=(1.0, 0.1, 0.5), solarize=(0.0, 0.4, 0.0), num_views=4, jitter_probability=0.0)
    for view, ours in enumerate(views(batch, 0)):
        expected = torch.stack(
            [torchvisions_view(views, batch.images[i], 0, view, int(batch.index[i])) for i in range(100)]
        )
        wrong = ((ours.double() - expected).abs() > 1e-4).float().mean()
        assert wrong < 0.01 if view == 1 else wrong == 0  # near the solarize threshold a pixel may fall either way


def test_views_are_float32_in_channels_last_memory() -> None:
    views = everything(num_views=3)(batch_of(), 0)
    assert len(views) == 3
    for view in views:
        assert view.shape == (40, 3, 16, 16)
        assert view.dtype == torch.float32
        assert view.is_contiguous(memory_format=torch.channels_last)


def test_the_same_call_twice_is_bit_identical_and_changes_no_pixel_of_the_set() -> None:
    pixels = pixels_of()
    first, second = (everything()(Batch(pixels, index_of()), 2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(pixels, pixels_of())


def test_permuting_the_batch_permutes_the_views() -> None:
    batch, views = batch_of(), everything(solarize=0.0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    permuted = views(Batch(batch.images[order], batch.index[order]), 1)
    for a, b in zip(permuted, views(batch, 1), strict=True):
        torch.testing.assert_close(a, b[order], rtol=0, atol=1e-4)


def test_an_image_alone_gets_the_view_it_gets_in_a_batch() -> None:
    batch, views = batch_of(), everything(solarize=0.0)
    together = views(batch, 1)
    for i in range(40):
        alone = views(Batch(batch.images[i : i + 1], batch.index[i : i + 1]), 1)
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 64), (2, 64), (3, 64)])
def test_a_view_does_not_tell_which_batch_its_image_was_in(channels: int, size: int, interpolation: str) -> None:
    """To the last bit: images alone, some of which are blurred, and batches whose widest crops are others."""
    keywords: dict[str, Any] = {"mean": (0.5,) * channels, "std": (0.3,) * channels, "blur": 0.5, "solarize": 0.3}
    if channels != 3:
        keywords |= {"jitter": (0.4, 0.4 * (channels == 1), 0.0, 0.0), "gray": 0.0}
    views = Views(8, interpolation=interpolation, **keywords)
    images, index = pixels_of(30, size, channels), index_of(30)
    whole = views(Batch(images, index), 1)
    for most in (1, 2, 7):
        shares = [views(Batch(images[rows], index[rows]), 1) for rows in torch.arange(30).split(most)]
        assert all(
            torch.equal(torch.cat(view), of_all) for view, of_all in zip(zip(*shares, strict=True), whole, strict=True)
        )


def test_views_epochs_and_seeds_differ() -> None:
    batch = batch_of()
    first, second = everything()(batch, 0)
    for other in (second, everything()(batch, 1)[0], everything(seed=1)(batch, 0)[0]):
        assert ((first - other).abs().amax((1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_cut_by_workers_give_the_batchs_views(interpolation: str) -> None:
    smooth, index = tv.gaussian_blur(pixels_of(size=30), 9), index_of()
    views = Views(
        12, local_views=2, interpolation=interpolation, jitter=(0.0, 0.0, 0.0, 0.0), mean=(0.0,) * 3, std=(1.0,) * 3
    )
    crops = tuple(torch.stack(views.crops(list(smooth), 4, view, index)) for view in views.all_views)
    assert crops[0].dtype == torch.uint8
    for a, b in zip(views(Batch(crops, index), 4), views(Batch(smooth, index), 4), strict=True):
        assert (a - b).abs().max() <= 1.15 / 255


def test_crops_cut_by_workers_meet_the_same_colours() -> None:
    batch = batch_of(size=30)
    views = Views(12, flip=0.5)
    crops = tuple(torch.stack(views.crops(list(batch.images), 0, view, batch.index)) for view in range(2))
    cut = views(Batch(crops, batch.index), 0)
    for a, b in zip(cut, views(batch, 0), strict=True):
        assert (a - b).abs().mean() < 0.03  # in units of the standard deviation; other colours are > 0.3 away
    assert (cut[0] - cut[1]).abs().mean() > 0.3


def test_the_loader_must_give_one_tensor_of_crops_per_view() -> None:
    with pytest.raises(AssertionError, match="per view"):
        everything()(Batch((pixels_of(),) * 3, index_of()), 0)


def share_changed(views: Views, count: int = 4000) -> float:
    pixels = torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    plain = Views(4, **NOTHING).plain(pixels)
    view = views(Batch(pixels, torch.arange(count)), 0)[0]
    return float(((view - plain).abs().amax((1, 2, 3)) > 1e-4).float().mean())


NOTHING: dict[str, Any] = {
    "scale": (1.0, 1.0),
    "ratio": (1.0, 1.0),
    "flip": 0.0,
    "jitter_probability": 0.0,
    "gray": 0.0,
}


def test_a_policy_of_nothing_shows_the_plain_image() -> None:
    assert share_changed(Views(4, **NOTHING)) == 0


# a blur of less than 0.23 pixels, 7 % of them, changes no pixel that can be seen
@pytest.mark.parametrize(
    ("name", "seen"), [("flip", 1.0), ("jitter_probability", 1.0), ("gray", 1.0), ("blur", 0.93), ("solarize", 1.0)]
)
def test_probabilities_are_met(name: str, seen: float) -> None:
    assert share_changed(Views(4, **{**NOTHING, name: 0.3})) == pytest.approx(0.3 * seen, abs=0.03)
    assert share_changed(Views(4, **{**NOTHING, name: 1.0})) == pytest.approx(seen, abs=0.02)


def test_jitter_orders_are_all_equally_likely_and_parameters_fill_their_range() -> None:
    draws = uniform(0, "jitter/0", 0, torch.arange(24_000), 9)
    orders = draws[:, 5:].argsort(1)
    counts = (orders * torch.tensor([1, 4, 16, 64])).sum(1).bincount()
    counts = counts[counts > 0]
    assert len(counts) == 24
    assert ((counts - 1000).abs() < 5 * 1000**0.5).all()
    pixels = torch.full((4000, 3, 4, 4), 100, dtype=torch.uint8)
    only_brightness = Views(4, **{**NOTHING, "jitter_probability": 1.0, "jitter": (0.4, 0.0, 0.0, 0.0)})
    factor = (only_brightness(Batch(pixels, torch.arange(4000)), 0)[0] * 0.2023 + 0.4914)[:, 0, 0, 0] * 2.55
    assert factor.min() == pytest.approx(0.6, abs=0.01)
    assert factor.max() == pytest.approx(1.4, abs=0.01)
    assert factor.mean() == pytest.approx(1.0, abs=0.02)


def test_factors_of_strong_jitter_are_uniform_above_zero() -> None:
    strong = Views(4, **{**NOTHING, "jitter_probability": 1.0, "jitter": (1.5, 0.0, 0.0, 0.0)})
    view = strong(Batch(torch.full((4000, 3, 4, 4), 102, dtype=torch.uint8), torch.arange(4000)), 0)[0]
    factor = (view * 0.2023 + 0.4914)[:, 0, 0, 0] / 0.4
    counts = factor.clamp(min=0).histc(10, 0, 2.5)  # 400 each; none above 2.5, where 0.4 * factor would be clipped
    assert ((counts - 400).abs() < 5 * 400**0.5).all()


# --- evaluation and named policies


def test_plain_normalises_like_torchvision() -> None:
    pixels = batch_of().images
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(Views(16).mean, Views(16).std)])
    plain = Views(16).plain(pixels)
    torch.testing.assert_close(plain, steps(pixels), rtol=0, atol=1e-5)
    assert plain.is_contiguous(memory_format=torch.channels_last)


def test_plain_takes_images_of_different_sizes() -> None:
    images = [torch.randint(0, 256, (3, h, w), dtype=torch.uint8) for h, w in [(16, 16), (40, 20), (7, 90)]]
    together = Views(16).plain(images)
    assert together.shape == (3, 3, 16, 16)
    for image, row in zip(images, together, strict=True):
        torch.testing.assert_close(Views(16).plain(image[None])[0], row)


@pytest.mark.parametrize(
    ("name", "size", "channels"), [("cifar", 32, 3), ("digits", 8, 1), ("photos", 48, 3), ("photos-asymmetric", 48, 3)]
)
def test_named_policies_make_views(name: str, size: int, channels: int) -> None:
    views = Views(size, **VIEWS[name])
    batch = batch_of(30, size, channels)
    for view in views(batch, 0):
        assert view.shape == (30, channels, size, size)
        assert view.isfinite().all()


def test_the_default_policy_is_the_papers() -> None:
    views = Views(32, **VIEWS["cifar"])
    assert (views.scale, views.ratio, views.interpolation) == ((0.1, 1.0), (3 / 4, 4 / 3), "bilinear")
    assert (views.flip, views.jitter, views.jitter_probability) == (0.5, (0.4, 0.4, 0.4, 0.1), 0.8)
    assert (views.gray, views.blur, views.solarize, views.num_views) == (0.2, 0.0, 0.0, 2)
    assert (views.mean, views.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_the_asymmetric_policy_is_byols() -> None:
    views = Views(224, **VIEWS["photos-asymmetric"])
    assert views.jitter == (0.4, 0.4, 0.2, 0.1)
    assert isinstance(views.blur, tuple)
    assert isinstance(views.solarize, tuple)
    assert (views.blur[:2], views.solarize[:2]) == ((1.0, 0.1), (0.0, 0.2))


def test_one_channel_takes_brightness_and_contrast() -> None:
    views = Views(8, **{**VIEWS["digits"], "jitter": (0.4, 0.4, 0.0, 0.0), "scale": (1.0, 1.0), "ratio": (1.0, 1.0)})
    batch = batch_of(50, 8, 1)
    changed = (views(batch, 0)[0] - views.plain(batch.images)).abs().amax((1, 2, 3)) > 1e-3
    assert 0.5 < changed.float().mean() < 1


@pytest.mark.parametrize("channels", [2, 4])
def test_other_numbers_of_channels_take_brightness(channels: int) -> None:
    views = Views(8, jitter=(0.4, 0.0, 0.0, 0.0), gray=0.0, blur=0.5, mean=(0.5,) * channels, std=(0.25,) * channels)
    assert views(batch_of(10, 8, channels), 0)[1].shape == (10, channels, 8, 8)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"size": 1}, "size = 1"),
        ({"num_views": 0}, "num_views = 0"),
        ({"local_views": -1}, "local_views = -1"),
        ({"local_views": 1, "local_size": 16}, "told apart"),
        ({"local_views": 1, "local_size": 1}, "size is 1"),
        ({"local_scale": (0.5, 0.4)}, "local_scale"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (0.5, 1.1)}, "scale"),
        ({"scale": (0.9, 0.5)}, "scale"),
        ({"scale": (0.5,)}, "scale"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"ratio": (2.0, 1.0)}, "ratio"),
        ({"interpolation": "nearest"}, "'nearest'"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"jitter_probability": -0.1}, "jitter_probability is -0.1"),
        ({"gray": float("nan")}, "gray is nan"),
        ({"blur": 2.0}, "blur is 2.0"),
        ({"solarize": -1.0}, "solarize is -1.0"),
        ({"blur": (0.5, 2.0)}, r"blur is \(0.5, 2.0\)"),
        ({"solarize": ()}, r"solarize is \(\)"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "hue's at most 0.5"),
        ({"jitter": (-0.4, 0.4, 0.4, 0.1)}, "at least 0"),
        ({"jitter": (0.4, 0.4, 0.4)}, "four strengths"),
        ({"policy": "quick"}, "policy is 'quick'; give 'exact' or 'fast'"),
        (
            {"policy": "fast", "mean": (0.5,), "std": (0.2,), "jitter": (0.4, 0.4, 0.0, 0.0), "gray": 0.0},
            "'fast' but it needs 3 channels and they have 1",
        ),
        ({"std": (0.2, 0.2, 0.0)}, "std above 0"),
        ({"std": (0.2, 0.2)}, "one number per channel"),
        ({"mean": (0.5,), "std": (0.2,)}, "need 3 channels but the views have 1"),
        ({"mean": (0.5,), "std": (0.2,), "jitter": (0.4, 0.4, 0.0, 0.0)}, "need 3 channels"),
        ({"mean": (0.5,), "std": (0.2,), "jitter": (0.4, 0.4, 0.0, 0.1), "gray": 0.0}, "need 3 channels"),
        ({"mean": (0.5,) * 4, "std": (0.2,) * 4, "jitter": (0.4, 0.4, 0.0, 0.0), "gray": 0.0}, "needs 1 or 3"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Views(**{"size": 16, **keywords})


def test_images_with_another_number_of_channels_are_refused() -> None:
    grey, index = pixels_of(4, 16, 1), index_of(4)
    message = "1 in an image but 3 in the views' mean"
    with pytest.raises(InputError, match=message):
        Views(16)(Batch(grey, index), 0)
    with pytest.raises(InputError, match=message):
        Views(16)(Batch((grey, grey), index), 0)
    with pytest.raises(InputError, match=message):
        Views(16).plain([grey[0]])


# ---------------------------------------------------------------------------------------------------------------------
# What probes are fitted on


def test_weak_views_are_shifted_copies_on_black() -> None:
    size = 16
    views = Views(size, mean=(0.0,) * 3, std=(1.0,) * 3, flip=0.0)
    images = random_bytes(40, 3, size, size)
    padded = torch.nn.functional.pad(images, [2] * 4).float() / 255
    shifts = set()
    for image, view in zip(padded, views.weak(images, torch.arange(40)), strict=True):
        fits = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.allclose(image[:, top : top + size, left : left + size], view, atol=1e-5)
        ]
        assert len(fits) == 1, "every view is the padded image, shifted by whole pixels"
        shifts.add(fits[0])
    assert len(shifts) > 15


def test_weak_views_flip_with_the_views_chance_and_repeat() -> None:
    images = random_bytes(8, 3, 16, 16)
    index = torch.arange(8)
    flipped = Views(16, flip=1.0).weak(images, index)
    assert torch.allclose(flipped.flip(3), Views(16, flip=0.0).weak(images, index), atol=1e-5)
    assert torch.equal(flipped, Views(16, flip=1.0).weak(images, index))


def test_weak_views_of_other_sizes_are_crops_of_the_views_size() -> None:
    images = [random_bytes(1, 3, 20 + i, 30)[0] for i in range(5)]
    views = Views(16).weak(images, torch.arange(5))
    assert views.shape == (5, 3, 16, 16)
    assert torch.equal(views[3:], Views(16).weak(images[3:], torch.tensor([3, 4]))), "addressed by the image"
    assert Views(16).weak(random_bytes(5, 3, 20, 30), torch.arange(5)).shape == (5, 3, 16, 16)


def random_bytes(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)
