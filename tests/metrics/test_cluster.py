"""Groupings against classes: known values, a slow loop, invariances."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from sklearn.cluster import KMeans

from evensphere.errors import InputError
from evensphere.metrics import cluster
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.cluster import (
    adjusted_rand_index,
    cluster_agreement,
    cosine_k_means,
    matched,
    normalized_mutual_information,
    region_ownership,
)
from evensphere.ops.draw import seed_for


def rays(count: int, groups: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Points near a few directions, at very different distances from the origin; and which direction each is near."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.arange(count) % groups
    points = torch.eye(8)[group] + 0.05 * torch.randn(count, 8, generator=generator)
    return points * torch.logspace(-2, 2, count)[:, None], group


def test_k_means_finds_directions_whatever_the_lengths() -> None:
    points, group = rays(120, 4)
    found = cosine_k_means(points, 4, seed=0)
    assert normalized_mutual_information(found, group) == pytest.approx(1)
    assert sorted(found.unique().tolist()) == [0, 1, 2, 3]
    assert torch.equal(found, cosine_k_means(points, 4, seed=0))
    by_distance = torch.tensor(KMeans(4, n_init=10, random_state=0).fit_predict(points.numpy())).long()
    assert normalized_mutual_information(by_distance, group) < 0.5, "distances would have found something else"


def test_k_means_is_scikit_learns_of_unit_vectors() -> None:
    points = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
    unit = (points / points.norm(dim=1, keepdim=True)).numpy()
    theirs = KMeans(6, n_init=10, random_state=seed_for(3, "clusters") % 2**32).fit_predict(unit)
    assert normalized_mutual_information(cosine_k_means(points, 6, seed=3), torch.from_numpy(theirs).long()) > 0.999


def test_centres_found_with_some_images_serve_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_FITTED", 40)
    points, group = rays(200, 4)
    assert normalized_mutual_information(cosine_k_means(points, 4, seed=0), group) == pytest.approx(1)


def test_a_cluster_of_one_is_given_up() -> None:
    points, group = rays(41, 2)
    points[40] = -torch.ones(8)  # far from everything
    assert torch.bincount(cosine_k_means(points, 3, seed=0, least=1)).sort().values.tolist() == [1, 20, 20]
    found = cosine_k_means(points, 3, seed=0)
    assert len(found) == 41
    assert sorted(found.unique().tolist()) == [0, 1]
    assert normalized_mutual_information(found[:40], group[:40]) == pytest.approx(1)


def test_the_nearest_centre_is_found_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    points, centres = torch.randn(50, 4, generator=generator), torch.randn(7, 4, generator=generator)
    offset = torch.randn(7, generator=generator)
    for entries in (1, 20, 10**9):
        monkeypatch.setattr(cluster, "BLOCK_ENTRIES", entries)
        for given in (None, offset):
            found = cluster.nearest_centre(points, centres, given)
            products = points @ centres.T + (0 if given is None else given)
            assert torch.equal(found.number, products.argmax(1))
            assert torch.allclose(found.similarity, products.amax(1))


def test_k_means_refuses_more_clusters_than_images() -> None:
    for clusters in (0, 5):
        with pytest.raises(InputError, match="give 1 to 4"):
            cosine_k_means(torch.eye(4), clusters, seed=0)


def test_mutual_information_knows_the_extremes() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    assert normalized_mutual_information(torch.tensor([5, 5, 3, 3, 0, 0]), labels) == pytest.approx(1)
    assert normalized_mutual_information(torch.tensor([0, 1, 0, 1, 0, 1]), labels) == pytest.approx(0, abs=1e-12)


def test_mutual_information_is_that_of_its_definition() -> None:
    assigned, labels = torch.randint(0, 4, (2, 200), generator=torch.Generator().manual_seed(0))
    joint = torch.zeros(4, 4, dtype=torch.float64)
    for a, c in zip(assigned.tolist(), labels.tolist(), strict=True):
        joint[a, c] += 1 / 200
    rows, columns = joint.sum(1), joint.sum(0)
    information = sum(
        joint[a, c] * math.log(joint[a, c] / (rows[a] * columns[c])) for a in range(4) for c in range(4) if joint[a, c]
    )
    entropies = [-sum(p * math.log(p) for p in shares.tolist() if p) for shares in (rows, columns)]
    assert normalized_mutual_information(assigned, labels) == pytest.approx(float(information) / (sum(entropies) / 2))


def test_owners_are_the_most_frequent_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    assigned = torch.randint(0, 6, (300,), generator=generator)
    labels = torch.randint(0, 5, (300,), generator=generator) % 4  # class 0 is common, class 4 has no image
    found = region_ownership(assigned, labels, num_regions=8, num_classes=5)
    owners = []
    for region in range(8):
        members = [c for a, c in zip(assigned.tolist(), labels.tolist(), strict=True) if a == region]
        owners.append(max(range(5), key=members.count) if members else -1)
    assert found.owner.tolist() == owners
    assert owners[6:] == [-1, -1]
    for c in range(5):
        homes = [owners[a] == c for a, one in zip(assigned.tolist(), labels.tolist(), strict=True) if one == c]
        assert float(found.at_home[c]) == pytest.approx(sum(homes) / len(homes) if homes else 0)


def test_groups_are_matched_to_classes_as_by_trying_all() -> None:
    generator = torch.Generator().manual_seed(0)
    assigned, labels = (torch.randint(0, 4, (60,), generator=generator) for _ in range(2))
    best = max(int((torch.tensor(order)[assigned] == labels).sum()) for order in itertools.permutations(range(4)))
    assert int((matched(assigned, labels, 4) == labels).sum()) == best


def test_groups_that_are_left_over_stand_for_nothing() -> None:
    assigned, labels = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 1])
    assert matched(assigned, labels, 2).tolist() == [0, 0, 1, 1, -1]
    assert matched(torch.zeros(3, dtype=torch.int64), torch.tensor([1, 1, 0]), 2).tolist() == [1, 1, 1]


def test_rand_index_by_pairs() -> None:
    assigned, labels = torch.tensor([0, 0, 1, 1, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = list(itertools.combinations(range(6), 2))
    together = sum(bool(assigned[i] == assigned[j]) and bool(labels[i] == labels[j]) for i, j in pairs)
    mine = sum(bool(assigned[i] == assigned[j]) for i, j in pairs)
    theirs = sum(bool(labels[i] == labels[j]) for i, j in pairs)
    chance = mine * theirs / len(pairs)
    assert adjusted_rand_index(assigned, labels) == pytest.approx((together - chance) / ((mine + theirs) / 2 - chance))


def test_separated_classes_are_found_and_constant_features_are_one_cluster() -> None:
    labels = torch.arange(30) % 3
    noise = 0.01 * torch.randn(30, 3, generator=torch.Generator().manual_seed(0))
    test = FeatureBank(torch.eye(3)[labels] + noise, labels)
    got = cluster_agreement(Banks(test, None, test, [9, 5, 2], "thirds"))
    assert (got["average"], got["nmi"], got["ari"]) == pytest.approx((100, 1, 1))
    one = FeatureBank(torch.eye(3)[labels], torch.zeros(30, dtype=torch.int64))
    assert cluster_agreement(Banks(one, None, one, [9, 5, 2], "thirds"))["many"] == 100, "one class"
    bad = FeatureBank(torch.full((30, 3), torch.nan), labels)
    with pytest.raises(InputError, match="NaN"):
        cluster_agreement(Banks(bad, None, bad, [9, 5, 2], "thirds"))
