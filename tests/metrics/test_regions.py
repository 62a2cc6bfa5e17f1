"""Skew of sizes against closed forms, a slow loop and the truth of made-up data."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor

from evensphere.metrics.cluster import cosine_k_means
from evensphere.metrics.regions import (
    exponential_imbalance,
    gini,
    region_skew,
    share_intervals,
    structureless,
)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=20))
def test_gini_is_the_mean_difference_over_twice_the_mean(sizes: list[int]) -> None:
    found = float(gini(torch.tensor(sizes)))
    if sum(sizes) == 0:
        assert found == 0
        return
    differences = sum(abs(a - b) for a in sizes for b in sizes) / len(sizes) ** 2
    assert found == pytest.approx(differences / (2 * sum(sizes) / len(sizes)), abs=1e-9)


def test_gini_of_equal_shares_and_of_one_that_has_everything() -> None:
    assert gini(torch.tensor([[5.0] * 4, [0.0, 0.0, 0.0, 7.0]])).tolist() == pytest.approx([0.0, 0.75])


@pytest.mark.parametrize("imbalance", [1.5, 10.0, 100.0, 1000.0])
def test_the_imbalance_of_a_profile_is_found_again(imbalance: float) -> None:
    sizes = imbalance ** torch.linspace(0, 1, 5001, dtype=torch.float64)
    assert exponential_imbalance(float(gini(sizes))) == pytest.approx(imbalance, rel=0.01)


def test_imbalances_out_of_reach() -> None:
    assert exponential_imbalance(0.0) == 1
    assert exponential_imbalance(0.99) == 1e6


def test_intervals_of_shares_are_wilsons() -> None:
    found = share_intervals(torch.tensor([0, 3, 97]))
    for count, (low, high) in zip((0, 3, 97), found.tolist(), strict=True):
        exact = binomtest(count, 100).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((exact.low, exact.high), abs=1e-5)


def regions(shares: Tensor, count: int, seed: int) -> Tensor:
    drawn = torch.multinomial(shares, count, replacement=True, generator=torch.Generator().manual_seed(seed))
    return torch.bincount(drawn, minlength=len(shares))


@pytest.mark.parametrize("imbalance", [1.0, 30.0])
def test_nineteen_intervals_of_twenty_hold_the_truth(imbalance: float) -> None:
    """Also where all regions are equal and only chance makes them unequal."""
    shares = imbalance ** torch.linspace(0, 1, 40)
    truth = float(gini(shares))
    found = [region_skew(regions(shares, 800, seed)) for seed in range(40)]
    held = sum(estimate.low - 0.02 <= truth <= estimate.high + 0.02 for estimate in found)
    assert held >= 34
    assert sum(estimate.value for estimate in found) / 40 == pytest.approx(truth, abs=0.03)


def test_crowds_around_directions_have_the_skew_that_they_were_made_with() -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = (300 * 0.7 ** torch.arange(8)).long()
    centres = torch.nn.functional.normalize(torch.randn(8, 32, generator=generator), dim=1)
    noise = 0.05 * torch.randn(int(sizes.sum()), 32, generator=generator)
    features = centres.repeat_interleave(sizes, dim=0) + noise
    estimate = region_skew(torch.bincount(cosine_k_means(features, 8, seed=0)))
    assert estimate.low <= float(gini(sizes)) <= estimate.high


def test_a_cloud_without_groups_has_the_same_mean_and_covariance() -> None:
    features = torch.nn.functional.normalize(torch.randn(4000, 5) * torch.tensor([3.0, 1, 1, 0.5, 0]) + 1, dim=1)
    cloud = structureless(features)
    assert torch.allclose(cloud.mean(0), features.mean(0), atol=0.03)
    assert torch.allclose(cloud.T.cov(), features.T.cov(), atol=0.03)
    assert torch.equal(cloud, structureless(features))
    assert not torch.equal(cloud, structureless(features, seed=1))
