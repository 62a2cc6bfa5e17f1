"""The paper's uniformity measures against slow loops, and where their values are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.metrics.geometry import class_centroids, inter_class_uniformity, neighborhood_uniformity


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


def test_more_neighbours_than_there_are_is_refused() -> None:
    with pytest.raises(InputError, match="give 1 to 2"):
        neighborhood_uniformity(torch.eye(3), 3)
