"""Two dimensions: what is alike lies close, the seed decides, and odd input has a map too."""

from __future__ import annotations

import pytest
import torch

from evensphere.errors import InputError
from evensphere.metrics.layout import two_dimensions


def blobs(each: int = 40, width: int = 16) -> torch.Tensor:
    noise = 0.1 * torch.randn(3 * each, width, generator=torch.Generator().manual_seed(0))
    return torch.eye(width)[torch.arange(3).repeat_interleave(each)] + noise


def test_what_is_alike_lies_close() -> None:
    places = two_dimensions(blobs())
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(1)
    assert torch.equal(nearest // 40, torch.arange(120) // 40)
    assert float(places.min()) >= 0
    assert float(places.max()) == pytest.approx(1.0)


def test_the_seed_decides_and_length_does_not() -> None:
    features = blobs()
    assert torch.equal(two_dimensions(features, 1), two_dimensions(features, 1))
    torch.testing.assert_close(two_dimensions(features), two_dimensions(4 * features))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12])
def test_few_images_have_places_of_their_own(count: int) -> None:
    places = two_dimensions(blobs()[:: 120 // count][:count])
    assert places.isfinite().all()
    assert len(places.unique(dim=0)) == count


def test_features_that_are_all_one_are_laid_out_in_a_row() -> None:
    places = two_dimensions(torch.ones(30, 8) + 1e-8 * torch.randn(30, 8))
    assert torch.equal(places[:, 0], torch.linspace(0, 1, 30))


def test_one_dimension_is_enough() -> None:
    assert two_dimensions(torch.tensor([[1.0], [-1.0]] * 10)).isfinite().all()


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        two_dimensions(torch.full((5, 3), torch.nan))
