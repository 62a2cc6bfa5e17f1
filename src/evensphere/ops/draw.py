"""Addressed randomness: a draw is a function of where it is used, never of what was drawn before.

Every random number has an address: (seed, purpose, time, place). Time is an epoch or a step; place is an image's index
or a position in the global batch. Two workers, two processes or a resumed run that ask for the same address get the
same bits, so exact resume and "N processes = 1 process" need no generator state at all.

The generator is SplitMix64's finaliser (Steele, Lea & Flood, OOPSLA 2014), a well-tested 64-bit mixing function,
applied to a counter. It is a few integer operations, so it runs vectorised and gives the same bits on every device.
"""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number: SplitMix64's increment
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def seed_for(seed: int, purpose: str, time: int = 0) -> int:
    """A 63-bit seed for other people's generators (weight initialisation, dropout), addressed like every draw."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{time}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniform(seed: int, purpose: str, time: int, place: Int64[Tensor, " n"], count: int) -> Float[Tensor, "n {count}"]:
    """`count` numbers in [0, 1) for each place, float32, on the device of `place`."""
    bits = _bits(seed, purpose, time, place, count)
    return ((bits >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def permutation(seed: int, purpose: str, time: int, length: int) -> Int64[Tensor, " {length}"]:
    """A random order of `range(length)`: each number is given 63 random bits and the numbers are sorted by them."""
    bits = _bits(seed, purpose, time, torch.arange(length), 1)[:, 0]
    return torch.argsort(bits, stable=True)


def _bits(seed: int, purpose: str, time: int, place: Int64[Tensor, " n"], count: int) -> Int64[Tensor, "n {count}"]:
    """64 random bits per place and count. One more round of mixing separates the places before the counts are added."""
    stream = _mix(place * _GOLDEN + seed_for(seed, purpose, time))
    return _mix(stream[:, None] + torch.arange(1, count + 1, device=place.device) * _GOLDEN)


def _mix(z: Int64[Tensor, ...]) -> Int64[Tensor, ...]:
    """SplitMix64's finaliser. torch shifts signed numbers arithmetically, so the sign's copies are masked off."""
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _MIX_1
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)
