"""Near-duplicates: what a fingerprint survives, and groups equal to a plain loop's."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image
from torch import Tensor

from evensphere.data import duplicates
from evensphere.data.duplicates import (
    DISTANCE,
    Fingerprint,
    Fingerprints,
    burst_weights,
    fingerprint,
    near_duplicates,
)
from evensphere.errors import InputError

GOLDEN = Path(__file__).parents[1] / "golden"

# --- fingerprints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["china.jpg", "flower.jpg"])
def photo(request: pytest.FixtureRequest) -> Image.Image:
    return Image.fromarray(load_sample_image(request.param))


def pixels(image: Image.Image) -> Tensor:
    planes = np.array(image)
    return torch.from_numpy(planes.reshape(*planes.shape[:2], -1)).permute(2, 0, 1).contiguous()


def bits_apart(one: Fingerprint, other: Fingerprint) -> int:
    assert not one.exact
    assert not other.exact
    return (one.code ^ other.code).bit_count()


def saved_again(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=40)
    return Image.open(file)


def with_noise(image: Image.Image) -> Image.Image:
    noise = np.random.RandomState(0).normal(0, 6, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def cropped(image: Image.Image) -> Image.Image:
    """Without 1 % at each side."""
    x, y = image.width // 100, image.height // 100
    return image.crop((x, y, image.width - x, image.height - y))


@pytest.mark.parametrize(
    "change",
    [
        saved_again,
        with_noise,
        cropped,
        lambda image: image.resize((image.width // 3, image.height // 3), Image.Resampling.LANCZOS),
        lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
        lambda image: image.convert("L"),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        lambda image: ImageEnhance.Contrast(image).enhance(0.9),
    ],
    ids=["saved again", "noise", "cropped", "smaller", "larger", "grey", "brighter", "paler"],
)
def test_it_survives_what_happens_to_copies(photo: Image.Image, change: Callable[[Image.Image], Image.Image]) -> None:
    assert bits_apart(fingerprint(pixels(photo)), fingerprint(pixels(change(photo)))) <= DISTANCE


def test_other_pictures_are_far_away(photo: Image.Image) -> None:
    other = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT), photo.crop((0, 0, photo.width // 2, photo.height // 2))
    for picture in other:
        assert bits_apart(fingerprint(pixels(photo)), fingerprint(pixels(picture))) > 2 * DISTANCE


def test_it_is_the_phash_of_the_whole_picture_but_for_rounding(photo: Image.Image) -> None:
    """The picture is shrunk in steps and its grey is roughly so, for speed; the oracle does neither."""
    oracle = int(str(imagehash.phash(photo)), 16)
    assert (oracle ^ fingerprint(pixels(photo)).code).bit_count() <= 4
    grey = Image.fromarray(np.asarray(photo).mean(2).astype(np.uint8))
    assert (int(str(imagehash.phash(grey)), 16) ^ fingerprint(pixels(grey)).code).bit_count() <= 2


def test_channels_and_bits_do_not_matter(photo: Image.Image) -> None:
    colour = pixels(photo)
    grey = colour.float().mean(0, keepdim=True).byte()
    for channels in (2, 3, 5):
        assert bits_apart(fingerprint(grey), fingerprint(grey.repeat(channels, 1, 1))) <= 4
    assert fingerprint(grey.float() / 255) == fingerprint(grey)


def test_a_picture_in_colours_of_one_brightness_is_no_blank_frame(photo: Image.Image) -> None:
    """Two channels take turns, so that their mean is flat: the first tells."""
    red = pixels(photo.convert("L"))[0]
    picture = fingerprint(torch.stack([red, 255 - red]))
    assert bits_apart(picture, fingerprint(red[None])) == 0


def test_some_pixels_of_a_large_picture_tell_what_all_would(photo: Image.Image) -> None:
    """Every fifth pixel of each line is looked at, and small things are not moved by it."""
    large = photo.resize((1933, 1290), Image.Resampling.BICUBIC)
    some = fingerprint(pixels(large))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_ENOUGH", 10_000)
        assert bits_apart(some, fingerprint(pixels(large))) <= 2


def blank(colour: tuple[int, ...] = (20, 120, 220), seed: int = 0, side: int = 64) -> Tensor:
    noise = torch.from_numpy(np.random.RandomState(seed).randint(-3, 4, (len(colour), side, side)))
    return (torch.tensor(colour)[:, None, None] + noise).byte()


def test_blank_frames_are_known_by_their_colour() -> None:
    frame = fingerprint(blank())
    assert frame.exact
    assert frame == fingerprint(blank(seed=1)) == fingerprint(blank(side=200)), "noise and size do not matter"
    assert frame != fingerprint(blank((120, 20, 220)))
    assert frame != fingerprint(blank((20, 120)))


def test_faint_or_tiny_detail_is_known_by_its_pixels_alone() -> None:
    """Its hash would be the noise around it, and it is not blank: the defect on the sheet is what one looks for."""
    defect = blank(side=256)
    defect[:, 100, 100:110] = 255
    elsewhere = blank(side=256)
    elsewhere[:, 20, 30:40] = 255
    found = fingerprint(defect)
    assert found.exact
    assert found == fingerprint(defect.clone())
    assert len({found, fingerprint(elsewhere), fingerprint(blank(side=256))}) == 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 20_000), (3, 7_000, 3), (1, 2, 2)])
def test_any_size_has_one(shape: tuple[int, int, int]) -> None:
    image = torch.from_numpy(np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8))
    assert fingerprint(image) == fingerprint(image.clone())


def test_those_of_a_collection_come_in_any_order_and_with_gaps(photo: Image.Image) -> None:
    found = Fingerprints(6)
    for i, picture in ((4, saved_again(photo)), (1, photo), (3, photo.transpose(Image.Transpose.ROTATE_90))):
        found.see(i, pixels(picture))
    found.see(5, blank())
    assert found.seen.tolist() == [False, True, False, True, True, True]
    assert found.groups().tolist() == [0, 1, 0, 2]


# --- groups -----------------------------------------------------------------------------------------------------------


def by_a_plain_loop(codes: ndarray, exact: ndarray, distance: int) -> list[int]:
    firsts: list[int] = []
    groups = []
    for i in range(len(codes)):
        near = [
            group
            for group, first in enumerate(firsts)
            if exact[i] == exact[first]
            and (int(codes[i]) ^ int(codes[first])).bit_count() <= (0 if exact[i] else distance)
        ]
        if not near:
            firsts.append(i)
        groups.append(near[0] if near else len(firsts) - 1)
    return groups


WORD = st.integers(0, 2**64 - 1)


@st.composite
def collections(draw: st.DrawFn) -> ndarray:
    """Hashes from nowhere, around a few centres, in chains and as copies, in any order."""
    codes = draw(st.lists(WORD, max_size=40))
    for centre in draw(st.lists(WORD, max_size=4)):
        flips = draw(st.lists(st.lists(st.integers(0, 63), max_size=9), max_size=25))
        codes += [centre ^ sum(1 << bit for bit in set(bits)) for bits in flips]
    codes += [(1 << length) - 1 for length in range(draw(st.integers(0, 64)))]
    codes += draw(st.lists(st.sampled_from(codes), max_size=10)) if codes else []
    return np.array(draw(st.permutations(codes)), dtype=np.uint64)


@given(collections(), st.integers(0, 16), st.integers(0, 2**32 - 1), st.sampled_from([2, 8, 1000]))
@settings(deadline=None, max_examples=60)
def test_groups_are_those_of_a_plain_loop(codes: ndarray, distance: int, seed: int, few: int) -> None:
    exact = np.random.RandomState(seed).rand(len(codes)) < (seed % 3) / 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_FEW", few)
        patch.setattr(duplicates, "_CANDIDATES", few)
        assert near_duplicates(codes, exact, distance).tolist() == by_a_plain_loop(codes, exact, distance)


def test_groups_of_real_photos() -> None:
    """The hashes of the 5,421 photos of the Grocery Store data set, and groups that people would make too."""
    golden = np.load(GOLDEN / "duplicates.npz")
    groups = near_duplicates(golden["hashes"])
    assert groups.tolist() == golden["groups"].tolist()
    assert torch.bincount(torch.bincount(groups)).tolist() == [0, 5334, 40, 1, 1]


def test_a_chain_of_neighbours_is_cut() -> None:
    """Each bit more is a neighbour; the ends are 64 bits apart, and members of one group at most 6 from its first."""
    chain = np.array([(1 << length) - 1 for length in range(65)], dtype=np.uint64)
    assert near_duplicates(chain).tolist() == [length // 7 for length in range(65)]


def test_a_hundred_thousand_frames_of_one_scene() -> None:
    """What a fixed camera takes; comparing members with members would take hours."""
    bits = np.random.RandomState(0).randint(0, 64, (100_000, 3)).astype(np.uint64)
    frames = np.bitwise_xor.reduce(np.uint64(1) << bits, axis=1)
    frames[0] = 0
    assert near_duplicates(frames).unique().tolist() == [0]


def test_no_images_have_no_groups() -> None:
    assert near_duplicates(np.zeros(0, dtype=np.uint64)).tolist() == []


@pytest.mark.parametrize("distance", [-1, 17])
def test_a_distance_that_makes_no_sense_is_refused(distance: int) -> None:
    with pytest.raises(InputError, match="give 0 to 16"):
        near_duplicates(np.zeros(2, dtype=np.uint64), distance=distance)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=50))
def test_each_group_weighs_one(members: list[int]) -> None:
    groups = torch.tensor(members)
    weights = burst_weights(groups)
    for group in set(members):
        assert float(weights[groups == group].double().sum()) == pytest.approx(1, abs=1e-5)
    assert burst_weights(torch.tensor([0, 1, 0, 2, 0, 0])).tolist() == [0.25, 1, 0.25, 1, 0.25, 0.25]
