"""The paper's uniformity measures against slow loops, and where their values are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.geometry import (
    centroid_spectrum,
    class_centroids,
    class_geometry,
    inter_class_uniformity,
    neighborhood_uniformity,
)


def test_centroids_are_mean_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(60, 5, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    centroids = class_centroids(features, labels, 3)
    for c in range(3):
        expected = normalize(normalize(features[labels == c], dim=1).mean(0), dim=0)
        assert torch.allclose(centroids[c], expected, atol=1e-6)
    scaled = features * torch.rand(60, 1, generator=generator).add(0.5)
    assert torch.allclose(class_centroids(scaled, labels, 3), centroids, atol=1e-6)


def test_uniformities_are_mean_distances() -> None:
    centroids = normalize(torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    for i in range(9):
        distances = sorted(float((centroids[i] - centroids[j]).norm()) for j in range(9) if j != i)
        assert float(inter_class_uniformity(centroids)[i]) == pytest.approx(sum(distances) / 8)
        assert float(neighborhood_uniformity(centroids, 3)[i]) == pytest.approx(sum(distances[:3]) / 3)


def test_a_simplex_is_as_uniform_as_can_be() -> None:
    anchors = geometric_uniform(20, 32)
    side = (2 * (1 + 1 / 19)) ** 0.5
    assert torch.allclose(inter_class_uniformity(anchors), torch.full((20,), side), atol=1e-5)
    assert torch.allclose(neighborhood_uniformity(anchors, 5), torch.full((20,), side), atol=1e-5)


def test_collapsed_classes_have_no_distance() -> None:
    one_point = torch.ones(150, 8) / 8**0.5  # many classes: the fast matrix form would lose digits here
    assert float(inter_class_uniformity(one_point).max()) == 0


def banks(test: FeatureBank, counts: list[int]) -> Banks:
    return Banks(test, None, test, counts, "thirds")


def test_the_spectrum_of_a_simplex_is_flat_and_of_one_point_is_not() -> None:
    spectrum = centroid_spectrum(geometric_uniform(20, 32))
    assert spectrum.tolist() == pytest.approx([20 / 19] * 19 + [0], abs=1e-5)
    assert centroid_spectrum(normalize(torch.ones(5, 3), dim=1)).tolist() == pytest.approx([5, 0, 0, 0, 0], abs=1e-5)


def test_geometry_by_group_is_that_of_the_classes_with_test_images() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 5
    got = class_geometry(banks(FeatureBank(features, labels), [90, 80, 9, 8, 2, 1]), neighbours=2)  # none of class 5
    centroids = class_centroids(features, labels, 5)
    spread, near = inter_class_uniformity(centroids), neighborhood_uniformity(centroids, 2)
    parts = {"many": [0, 1], "medium": [2, 3], "few": [4], "average": [0, 1, 2, 3, 4]}
    assert got["inter_class_uniformity"] == pytest.approx(
        {name: float(spread[of].mean()) for name, of in parts.items()}
    )
    assert got["neighborhood_uniformity"]["few"] == pytest.approx(float(near[4]))
    assert got["largest_cosine"] == pytest.approx(
        max(float(centroids[i] @ centroids[j]) for i in range(5) for j in range(i))
    )
    assert sum(got["centroid_spectrum"]) == pytest.approx(5)


def test_geometry_of_one_class_or_of_nan_is_refused() -> None:
    one = FeatureBank(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match="of one class"):
        class_geometry(banks(one, [3, 2, 1]))
    with pytest.raises(InputError, match="NaN"):
        class_geometry(banks(one._replace(features=torch.full((4, 3), torch.nan)), [3, 2, 1]))
    same = FeatureBank(torch.ones(4, 3), torch.tensor([0, 0, 1, 2]))
    assert class_geometry(banks(same, [3, 2, 1]))["inter_class_uniformity"]["average"] == 0, "constant features"


def test_more_neighbours_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="give 1 to 2"):
        neighborhood_uniformity(torch.eye(3), 3)
