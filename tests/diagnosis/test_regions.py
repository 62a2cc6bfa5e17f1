"""Region findings on crowds of known sizes, on a cloud without any, and through GH's own anchors."""

from __future__ import annotations

import pytest
import torch
from tests.diagnosis.made_up import cloud, crowds, seen

from evensphere.diagnosis.regions import Regions, regions_by_k_means, regions_of_run, sizes_finding, skew_finding
from evensphere.gh.harmonizer import Harmonizer, anchor_scores
from evensphere.metrics.regions import gini

SIZES = [int(300 * 0.6**i) for i in range(8)]


def test_crowds_of_known_sizes_are_found_with_their_skew() -> None:
    regions = regions_by_k_means(crowds(SIZES), len(SIZES))
    assert sorted(regions.counts.tolist()) == sorted(SIZES)
    found = skew_finding(regions, consistency=0.9)
    skew = found.numbers["gini"]
    assert skew["low"] <= float(gini(torch.tensor(SIZES))) <= skew["high"]
    assert "Not reliable" not in found.sentence


def test_a_skew_that_is_no_more_than_that_of_a_cloud_is_not_believed() -> None:
    features = cloud(1500) * torch.linspace(3, 0.1, 32)
    found = skew_finding(regions_by_k_means(features, 20), consistency=0.9)
    assert "points without any groups" in found.sentence


def test_a_skew_of_neighbourhoods_that_are_accidents_is_not_believed() -> None:
    regions = regions_by_k_means(crowds(SIZES), len(SIZES))
    assert "Not reliable here" in skew_finding(regions, consistency=0.29).sentence
    assert "Not reliable here" not in skew_finding(regions, consistency=None).sentence


@pytest.mark.parametrize(
    ("counts", "level", "words"),
    [
        ([50] * 10, "info", "5 of 10 hold half"),
        ([500, 20, 20, 20], "warning", "one holds 89.3"),
        ([100] * 5 + [0] * 5, "warning", "5 of 10 regions are empty"),
    ],
)
def test_sizes(counts: list[int], level: str, words: str) -> None:
    found = sizes_finding(Regions(torch.tensor(counts), "the regions", 0.1, None))
    assert found.level == level
    assert words in found.sentence.replace("\xa0", " ")
    shares, intervals = found.numbers["shares"], found.numbers["intervals"]
    assert sum(shares) == pytest.approx(1)
    assert all(low <= share + 1e-6 <= high + 2e-6 for share, (low, high) in zip(shares, intervals, strict=True))


def test_ghs_regions_are_pi_once_it_has_counted_and_where_images_stand_before() -> None:
    harmonizer = Harmonizer(32, num_samples=1000, anchors=10)
    look = seen(cloud(400), 0.2)
    before = regions_of_run(look, harmonizer, images=1000, has_begun=False)
    assert look.embeddings is not None
    nearest = anchor_scores((look.embeddings[:, 0],), harmonizer.anchors)[0].argmax(1)
    assert before.counts.tolist() == torch.bincount(nearest, minlength=10).tolist()
    harmonizer.prior = torch.arange(1.0, 11.0) / 55
    after = regions_of_run(look, harmonizer, images=1000, has_begun=True)
    assert after.counts.tolist() == [round(1000 * i / 55) for i in range(1, 11)]
    still = regions_of_run(seen(cloud(400), 0.0), harmonizer, 1000, False)
    assert still.agreement == 1.0
    assert before.agreement is not None
    assert 0.1 < before.agreement < 1.0
    fixed = Harmonizer(32, anchors=10, prior="uniform")
    assert regions_of_run(look, fixed, 1000, True).what == "the regions of GH's anchors", "a fixed pi counts nothing"
