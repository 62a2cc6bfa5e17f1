"""Near-duplicates: bursts, frames of one film, copies saved again. Thousands of takes of one thing look like a common
thing to population statistics, so images are put in groups of which each counts once.

    fingerprint(image)     64 bits that hardly change when a picture is saved again, resized or brightened
    near_duplicates(...)   the groups: every image within a few bits of the first image of its group
    burst_weights(groups)  1 / size of the image's group

How close is close: of 1,000 photos, all were within 6 bits of themselves saved again, halved, doubled, in grey or 10 %
brighter, and 98 % within 6 bits of themselves cropped by 2 %. Of 14 million pairs of different things, 7 were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import reduce
from itertools import combinations
from typing import NamedTuple

import imagehash
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8, UInt64
from numpy import ndarray
from PIL import Image
from torch import Tensor

from evensphere.errors import InputError

DISTANCE = 6  # bits of 64; distances are even nearly always, because half of a hash's bits are set
_LARGEST_DISTANCE = 16  # beyond, most pairs of photos are candidates

_SIDE = 32  # pixels of the picture that is hashed
_ENOUGH = 256  # of the pixels along the short side are looked at; averaged, they tell the same as all
_FLAT = 2.0  # levels of 255: a picture whose 32x32 pixels deviate less shows nothing but noise and rounding
_BLANK = 32  # levels between the darkest and the brightest pixel of a frame that is blank and not just faint
_COLOURS = 16  # levels that blank frames of one colour may differ by

# --- what an image looks like -----------------------------------------------------------------------------------------


class Fingerprint(NamedTuple):
    """code: 64 bits. exact: whether only an equal code means the same picture; else a few bits may differ."""

    code: int
    exact: bool


def fingerprint(image: Shaped[Tensor, "c h w"]) -> Fingerprint:
    """What to recognise an image by: imagehash's `phash` (the signs of its lowest 8x8 frequencies about their median)
    of what is grey in it, or of the first channel that shows something where that is flat.

    A flat picture has no frequencies, its hash would be noise. A blank frame is known by its colour instead, rounded;
    one with faint or tiny detail by its very pixels, so that it is never taken for another.

    image: [C, H, W] of any size, uint8 or floating point in 0..1.
    """
    pixels = image.numpy()
    for small in _small_pictures(pixels):
        if np.asarray(small).std() >= _FLAT:
            return Fingerprint(_as_int(np.packbits(imagehash.phash(small).hash).tobytes()), exact=False)
    pixels = _in_8_bits(pixels)
    if all(int(plane.max()) - int(plane.min()) <= _BLANK for plane in pixels):
        colour = bytes(int(plane.mean()) // _COLOURS for plane in pixels)
        return Fingerprint(_as_int(_digest(b"blank" + colour)), exact=True)
    return Fingerprint(_as_int(_digest(str(pixels.shape).encode() + pixels.tobytes())), exact=True)


def _small_pictures(pixels: Shaped[ndarray, "c h w"]) -> Iterator[Image.Image]:
    """32x32 pictures to hash: what is grey in the pixels, then one channel after the other."""
    step = max(1, min(pixels.shape[1:]) // _ENOUGH)
    some = _in_8_bits(np.ascontiguousarray(pixels[:, step // 2 :: step, step // 2 :: step]))
    height, width = (min(have, of / step) for have, of in zip(some.shape[1:], pixels.shape[1:], strict=True))
    for plane in (_grey(some), *some) if len(some) > 1 else some:
        whole = (0, 0, width, height)
        yield Image.fromarray(plane).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, whole, reducing_gap=3.0)


def _in_8_bits(pixels: Shaped[ndarray, "c h w"]) -> UInt8[ndarray, "c h w"]:
    return pixels if pixels.dtype == np.uint8 else (pixels * 255).round().astype(np.uint8)


def _grey(pixels: UInt8[ndarray, "c h w"]) -> UInt8[ndarray, "h w"]:
    """About the luminance of RGB, which saving it as JPEG or in grey keeps; else the channels' mean. Sums of shares, so
    that they fit into 8 bits."""
    if len(pixels) == 3:
        red, green, blue = pixels
        shares = [red >> 2, green >> 1, green >> 3, blue >> 3]
    else:
        shares = list(pixels // np.uint8(min(len(pixels), 255)))
    return reduce(np.add, shares)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).digest()


def _as_int(code: bytes) -> int:
    return int.from_bytes(code, "big")


class Fingerprints:
    """The fingerprints of a collection, filled in any order, by any thread: `see` is what `scan` calls.

    seen: which images have one, bool [N].
    """

    def __init__(self, num_images: int) -> None:
        self.seen = np.zeros(num_images, dtype=bool)
        self._codes = np.zeros(num_images, dtype=np.uint64)
        self._exact = np.zeros(num_images, dtype=bool)

    def see(self, i: int, image: Shaped[Tensor, "c h w"]) -> None:
        self._codes[i], self._exact[i] = fingerprint(image)
        self.seen[i] = True

    def groups(self, distance: int = DISTANCE) -> Int64[Tensor, " seen"]:
        """The groups of the images seen, in their order (see `near_duplicates`)."""
        return near_duplicates(self._codes[self.seen], self._exact[self.seen], distance)


# --- which images look alike ------------------------------------------------------------------------------------------


def near_duplicates(
    codes: UInt64[ndarray, " n"], exact: Bool[ndarray, " n"] | None = None, distance: int = DISTANCE
) -> Int64[Tensor, " n"]:
    """The group of each image, numbered 0, 1, ... by first appearance.

    An image joins the first group whose first image it is within `distance` bits of; where there is none, it is the
    first image of a new group. So the members of a group differ by at most 2 * distance bits. Groups made of chains
    of neighbours would have no such bound: in a uniform collection (scans, a fixed camera) one would swallow almost
    everything, and what is left would count a thousand times as much.

    codes, exact: of the images' fingerprints, exact=None for hashes alone. distance: bits, in [0, 16].
    Time: close to linear for hashes of photos (a million in about a minute), and where very many are alike.
    """
    if not 0 <= distance <= _LARGEST_DISTANCE:
        raise InputError(f"A distance of {distance} bits was given; give 0 to {_LARGEST_DISTANCE}.")
    first_of = np.empty(len(codes), dtype=np.int64)  # the number of each image's group's first image
    exact = np.zeros(len(codes), dtype=bool) if exact is None else exact
    for alike, bits in ((exact, 0), (~exact, distance)):
        numbers = np.flatnonzero(alike)
        _, first, copy_of = np.unique(codes[numbers], return_index=True, return_inverse=True)
        order = np.argsort(first)  # the different codes, by first appearance
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        different = codes[numbers[first[order]]]
        leaders = np.arange(len(order)) if bits == 0 else _leaders(different, bits)
        first_of[numbers] = numbers[first[order]][leaders[rank[copy_of]]]
    return torch.from_numpy(np.unique(first_of, return_inverse=True)[1].astype(np.int64))


def burst_weights(groups: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """1 / size of each image's group: together, the images of a group weigh 1."""
    return 1 / torch.bincount(groups)[groups].float()


_FEW = 512  # codes that are compared with each other without further ado


def _leaders(codes: UInt64[ndarray, " n"], distance: int) -> Int64[ndarray, " n"]:
    """The place of each code's leader: the earliest code within `distance` that is a leader itself, its own place if
    there is none. Different codes only.

    By halves: the second half first asks the leaders of the first half, and what finds none is led by its own. Members
    are never compared with members, so a million frames of one scene cost no more than a million different ones.
    """
    if len(codes) <= _FEW:
        return _leaders_of_few(codes, distance)
    half = len(codes) // 2
    leaders = np.concatenate([_leaders(codes[:half], distance), np.arange(half, len(codes))])
    asked = np.unique(leaders[:half])
    found = _earliest_within(codes[half:], codes[asked], distance)
    led, rest = half + np.flatnonzero(found >= 0), half + np.flatnonzero(found < 0)
    leaders[led] = asked[found[found >= 0]]
    leaders[rest] = rest[_leaders(codes[rest], distance)]
    return leaders


def _leaders_of_few(codes: UInt64[ndarray, " n"], distance: int) -> Int64[ndarray, " n"]:
    leaders = np.full(len(codes), -1)
    for place in range(len(codes)):
        if leaders[place] < 0:
            near = np.bitwise_count(codes[place:] ^ codes[place]) <= distance
            leaders[place:][near & (leaders[place:] < 0)] = place
    return leaders


_CANDIDATES = 2**22  # pairs that are looked at together


def _earliest_within(
    codes: UInt64[ndarray, " n"], others: UInt64[ndarray, " m"], distance: int
) -> Int64[ndarray, " n"]:
    """For each code, the place of the earliest of `others` within `distance` bits; -1 where there is none.

    The pigeonhole: of distance + 2 blocks of bits, codes that differ in `distance` bits agree in two at least. So every
    pair that counts is found by looking up equal pairs of blocks, for each of the pairs there are.
    """
    earliest = np.full(len(codes), len(others))
    for mask in _masks(distance):
        keys, wanted = others & mask, codes & mask
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        start, end = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        hits = np.flatnonzero(end > start)
        for some in _portions(hits, end[hits] - start[hits]):
            size = end[some] - start[some]
            code = np.repeat(some, size)
            other = order[np.arange(len(code)) + np.repeat(start[some] - size.cumsum() + size, size)]
            near = np.bitwise_count(codes[code] ^ others[other]) <= distance
            np.minimum.at(earliest, code[near], other[near])
    return np.where(earliest < len(others), earliest, -1)


def _masks(distance: int) -> list[np.uint64]:
    """Every pair of distance + 2 blocks that the 64 bits are cut into."""
    ends = [64 * block // (distance + 2) for block in range(distance + 3)]
    blocks = [(1 << ends[block + 1]) - (1 << ends[block]) for block in range(distance + 2)]
    return [np.uint64(one | other) for one, other in combinations(blocks, 2)]


def _portions(hits: Int64[ndarray, " hits"], sizes: Int64[ndarray, " hits"]) -> list[Int64[ndarray, " some"]]:
    """The hits in pieces of about `_CANDIDATES` pairs."""
    cuts = np.flatnonzero(np.diff(sizes.cumsum() // _CANDIDATES)) + 1
    return np.split(hits, cuts)
