"""Separable filters against the two products of matrices that they are."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evensphere.data.separable import Taps, filter_separably


def random_taps(batch: int, out: int, length: int, taps: int, generator: torch.Generator) -> Taps:
    rows = torch.randint(0, length, (batch, out, taps), generator=generator)
    return Taps(rows, torch.randn(batch, out, taps, generator=generator))


def matrices(taps: Taps, length: int) -> Tensor:
    """The same filter as a matrix per image; rows that are read twice add up."""
    batch, out, _ = taps.rows.shape
    return torch.zeros(batch, out, length).scatter_add_(2, taps.rows.long(), taps.weights).double()


@given(
    batch=st.integers(1, 5),
    channels=st.integers(1, 4),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    out=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    taps=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_a_separable_filter_is_two_matrix_products(
    batch: int, channels: int, height: int, width: int, out: tuple[int, int], taps: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, channels, height, width, generator=generator)
    rows = random_taps(batch, out[0], height, taps[0], generator)
    columns = random_taps(batch, out[1], width, taps[1], generator)
    filtered = filter_separably(images, rows, columns)
    expected = torch.einsum("bih,bchw,bjw->bcij", matrices(rows, height), images.double(), matrices(columns, width))
    assert filtered.shape == (batch, channels, *out)
    torch.testing.assert_close(filtered.double(), expected, rtol=1e-5, atol=1e-4)


def test_an_image_has_the_same_bits_in_any_batch_and_layout() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(9, 3, 20, 14, generator=generator)
    rows, columns = random_taps(9, 11, 20, 3, generator), random_taps(9, 8, 14, 2, generator)
    together = filter_separably(images, rows, columns)
    assert torch.equal(together, filter_separably(images.mT.contiguous().mT, rows, columns))
    for i in range(9):
        one = slice(i, i + 1)
        assert torch.equal(filter_separably(images[one], rows.of(one), columns.of(one)), together[one])
