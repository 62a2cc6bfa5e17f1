"""Groupings against classes: known values, a slow loop, invariances."""

from __future__ import annotations

import math

import pytest
import torch

from evensphere.metrics.cluster import effective_number, normalized_mutual_information, region_ownership


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


def test_the_effective_number_counts_equal_shares() -> None:
    assert effective_number(torch.full((7,), 1 / 7)) == pytest.approx(7, rel=1e-5)
    assert effective_number(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert 2 < effective_number(torch.tensor([0.6, 0.2, 0.2])) < 3
