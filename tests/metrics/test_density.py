"""Densities against a slow loop, their ranks, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import evensphere.metrics.density as density_module
from evensphere.errors import InputError
from evensphere.metrics.density import (
    density_deciles,
    knn_density,
    nearest_neighbours,
    neighbourhood_consistency,
)


def points(count: int, width: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_density_is_that_of_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_module, "BLOCK_ENTRIES", 100)  # blocks of 3 rows, the last one short
    features = points(31, 5)
    found = knn_density(features * torch.rand(31, 1).add(0.1), k=4)
    for i in range(31):
        distances = sorted(1 - float(features[i] @ features[j]) for j in range(31) if j != i)
        assert float(found[i]) == pytest.approx(-math.log(sum(distances[:4]) / 4), abs=1e-4)


def test_neighbours_are_sorted_and_never_oneself() -> None:
    features = points(40, 3)
    index, similarity = nearest_neighbours(features, k=7)
    cosines = (features @ features.T).fill_diagonal_(-1.0)
    assert torch.equal(index, cosines.argsort(dim=1, descending=True)[:, :7])
    assert torch.equal(similarity, similarity.sort(dim=1, descending=True).values)


def test_neighbours_are_looked_for_among_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_module, "BLOCK_ENTRIES", 30)  # blocks of 3 rows
    features, among = points(41, 5), torch.arange(0, 41, 4)[:10]
    index, similarity = nearest_neighbours(features, 3, among)
    cosines = (features @ features.T).fill_diagonal_(-torch.inf)[:, among]
    assert torch.equal(index, among[cosines.topk(3).indices])
    torch.testing.assert_close(similarity, cosines.topk(3).values)


def test_a_crowd_is_denser_than_loners() -> None:
    crowd = normalize(torch.eye(8)[:1] + 0.05 * points(50, 8), dim=1)
    density = knn_density(torch.cat([points(50, 8, seed=1), crowd]))
    assert density[50:].min() > density[:50].max()
    assert (density_deciles(density)[50:] >= 5).all()


def test_copies_are_as_dense_as_can_be_and_right_angles_have_density_0() -> None:
    assert knn_density(torch.ones(12, 4)).tolist() == pytest.approx([math.log(1e6)] * 12, rel=1e-5)
    assert knn_density(torch.eye(6)).tolist() == pytest.approx([0.0] * 6, abs=1e-6)


def test_fewer_images_than_neighbours() -> None:
    index, _ = nearest_neighbours(points(3, 4), k=10)
    assert index.shape == (3, 2)
    assert knn_density(points(2, 4)).isfinite().all()


@pytest.mark.parametrize("count", [1, 7, 10, 95, 1000])
def test_tenths_are_ranks(count: int) -> None:
    density = torch.randn(count, generator=torch.Generator().manual_seed(1))
    tenths = density_deciles(density)
    for i in range(count):
        assert int(tenths[i]) == int((density < density[i]).sum()) * 10 // count
    sizes = torch.bincount(tenths, minlength=10)
    assert int(sizes.max() - sizes.min()) <= 1


def test_equal_densities_are_ranked_by_order() -> None:
    assert density_deciles(torch.zeros(20)).tolist() == [i // 2 for i in range(20)]


@pytest.mark.parametrize(
    ("features", "k", "words"),
    [
        (torch.ones(1, 3), 10, "1 image"),
        (torch.ones(0, 3), 10, "0 image"),
        (torch.ones(5, 3), 0, "k = 0"),
        (torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]), 1, "not finite"),
    ],
)
def test_what_has_no_neighbours_is_refused(features: Tensor, k: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        knn_density(features, k)


def test_views_agree_fully_by_chance_or_in_between() -> None:
    features, k = points(300, 6), 5
    own = nearest_neighbours(features, k)
    assert neighbourhood_consistency(own, own).tolist() == pytest.approx([1.0] * 300)
    others = neighbourhood_consistency(own, nearest_neighbours(points(300, 6, seed=1), k))
    assert abs(float(others.mean())) < 0.02
    noisy = nearest_neighbours(features + 0.1 * points(300, 6, seed=2), k)
    found = neighbourhood_consistency(own, noisy)
    for i in range(0, 300, 50):
        shared = len(set(own.index[i].tolist()) & set(noisy.index[i].tolist())) / k
        assert float(found[i]) == pytest.approx((shared - k / 299) / (1 - k / 299), abs=1e-6)
    assert 0.2 < float(found.mean()) < 0.9


def test_neighbours_that_are_everyone_cannot_agree_or_disagree() -> None:
    everyone = nearest_neighbours(points(5, 4), k=4)
    with pytest.raises(InputError, match="at least 6 images"):
        neighbourhood_consistency(everyone, everyone)
