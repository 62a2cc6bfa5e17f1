"""How the images divide into regions: GH's own, or k-means where there are none. A region is no class."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from evensphere.diagnosis.finding import RELIABLE, Chart, Finding, Question
from evensphere.diagnosis.look import Look
from evensphere.gh.harmonizer import Harmonizer, anchor_scores
from evensphere.metrics.cluster import cosine_k_means
from evensphere.metrics.regions import (
    Estimate,
    exponential_imbalance,
    region_skew,
    share_intervals,
    structureless,
)
from evensphere.metrics.signals import effective_number
from evensphere.report.wording import PERCENT, listing

_SHOWN = 100  # regions in the picture


class Regions(NamedTuple):
    """A division of the images into regions.

    counts: images of each region, int64 [K]. what: what the regions are, in words.
    structureless: Gini coefficient of the same kind of regions of a cloud without groups.
    agreement: share of the images whose two views stand in one region; None without views or fixed regions.
    """

    counts: Int64[Tensor, " k"]
    what: str
    structureless: float
    agreement: float | None


def regions_of_run(look: Look, harmonizer: Harmonizer, images: int, has_begun: bool) -> Regions:
    """The regions of GH's anchors: pi where GH has counted, else where the images looked at stand.

    images: of the run. has_begun: whether pi has been estimated.
    """
    assert look.embeddings is not None
    anchors = harmonizer.anchors.cpu()
    first, second = anchor_scores(look.embeddings.unbind(1), anchors).argmax(2)
    null = anchor_scores((structureless(look.embeddings[:, 0]),), anchors)[0].argmax(1)
    agreement = float((first == second).float().mean())
    if has_begun and harmonizer.population is not None:
        counts, what = (harmonizer.prior.cpu() * images).round().long(), "GH's regions (pi)"
    else:
        counts, what = _counts(first, len(anchors)), "the regions of GH's anchors"
    return Regions(counts, what, region_skew(_counts(null, len(anchors))).value, agreement)


def regions_by_k_means(features: Float[Tensor, "n d"], clusters: int, seed: int = 0) -> Regions:
    """Regions of features, where nobody has drawn any yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different images than clusters: some stay empty
        counts, null = (
            _counts(cosine_k_means(points, clusters, seed, least=1), clusters)
            for points in (features, structureless(features))
        )
    return Regions(counts, f"{clusters} regions by k-means", region_skew(null).value, None)


def _counts(assigned: Int64[Tensor, " n"], clusters: int) -> Int64[Tensor, " k"]:
    return torch.bincount(assigned, minlength=clusters)


# --- findings ---------------------------------------------------------------------------------------------------------


def sizes_finding(regions: Regions) -> Finding:
    """Region sizes, with intervals, and how many regions there are in effect."""
    counts = regions.counts.sort(descending=True).values
    total, k = int(counts.sum()), len(counts)
    shares, intervals = counts.double() / total, share_intervals(counts)
    effective, empty = effective_number(shares), int((counts == 0).sum())
    half = int((shares.cumsum(0) < 0.5).sum()) + 1
    numbers = {
        "regions": k,
        "effective": effective,
        "empty": empty,
        "half_of_the_images_in": half,
        "shares": [float(share) for share in shares],
        "intervals": intervals.tolist(),
    }
    chart = Chart(
        "bars",
        f"Region sizes, {regions.what}, with 95 % intervals.",
        list(range(1, min(k, _SHOWN) + 1)),
        "region, largest first",
        "images, %",
        {"region size": [100 * float(share) for share in shares[:_SHOWN]]},
        {"region size": [(100 * low, 100 * high) for low, high in intervals[:_SHOWN].tolist()]},
    )
    low, high = (100 * one for one in intervals[0].tolist())
    largest = f"{100 * float(shares[0]):.1f}{PERCENT} [{low:.1f} to {high:.1f}]"
    evidence = (
        "A region is a part of the space, not a class: on CIFAR-100-LT the size of an image's region had no rank "
        "correlation (-0.02 and 0.00) with the size of its class (docs/log.md; docs/results.md)."
    )
    asked = Question("region-sizes", "How do the images divide into regions?", numbers, evidence, chart)
    if effective < 2 or float(shares[0]) > 0.5:
        return asked.answer(
            "warning",
            f"Of {regions.what}, one holds {largest} of the images: nearly everything looks alike.",
            "Either the images are nearly all of one kind, or the network has not learnt to tell them apart; the "
            "findings on collapse and neighbours say which.",
        )
    if empty > k / 3:
        return asked.answer(
            "warning",
            f"{empty} of {k} regions are empty ({regions.what}); as many equal ones would be {effective:.0f}.",
            f"Use fewer anchors: --set harmonizer.anchors={max(2, round(effective))}.",
        )
    return asked.answer(
        "info",
        f"{regions.what[0].upper()}{regions.what[1:]}: the largest holds {largest} of the images, {half} of {k} hold "
        f"half of them; as diverse as {effective:.0f} equal ones.",
    )


def skew_finding(regions: Regions, consistency: float | None) -> Finding:
    """How skewed the data looks, and whether that can be believed."""
    skew = region_skew(regions.counts)
    imbalance = Estimate(*(exponential_imbalance(one) for one in skew))
    numbers = {
        "gini": skew._asdict(),
        "as_exponential_imbalance": imbalance._asdict(),
        "gini_without_groups": regions.structureless,
        "consistency_percent": None if consistency is None else 100 * consistency,
    }
    evidence = (
        "Gini coefficient of the region sizes: 0 equal, 1 one has all. It is a skew of regions; only where "
        "regions hold kinds of things is it one of these. A cloud of points without any groups, of the same "
        f"shape, gives {regions.structureless:.2f}. k-means regions of CIFAR-100-LT (classes: 0.59) and of "
        "balanced CIFAR-100 (classes: 0) had nearly the same, 0.11 and 0.09 (docs/log.md)."
    )
    asked = Question("skew", "How skewed is the data?", numbers, evidence)
    words = f"{skew.value:.2f} [{skew.low:.2f} to {skew.high:.2f}]"
    doubts = []
    if consistency is not None and consistency < RELIABLE:
        doubts.append("two views of an image do not agree on its neighbours")
    if skew.low <= regions.structureless:
        doubts.append(f"points without any groups would give as much ({regions.structureless:.2f})")
    if doubts:
        return asked.answer(
            "info",
            f"Not reliable here: the regions' skew of {words} says nothing of the data, because {listing(doubts)}.",
            "Label 200 images drawn at random and count: that is worth more than any estimate here.",
        )
    return asked.answer(
        "info",
        f"Region sizes have a Gini coefficient of {words}, as classes would whose largest has {_times(imbalance)} "
        "times the images of the smallest.",
        "Check it against 200 labelled images drawn at random before you rely on it.",
    )


def _times(imbalance: Estimate) -> str:
    return f"{imbalance.value:,.0f} [{imbalance.low:,.0f} to {imbalance.high:,.0f}]"
