"""The sparse end of the data, tenth by tenth: who has few like it, whether the network knows its neighbours there, and
how much it tells apart there. Without labels the sparse images stand in for the rare ones; how badly is part of the
findings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evensphere.diagnosis.finding import RELIABLE, Chart, Finding, Question
from evensphere.diagnosis.look import Look
from evensphere.errors import InputError
from evensphere.metrics.density import (
    DECILES,
    Neighbours,
    density_deciles,
    density_of,
    nearest_neighbours,
    neighbourhood_consistency,
)
from evensphere.metrics.regions import Estimate
from evensphere.metrics.signals import lidar, rank_me
from evensphere.report.wording import PERCENT, listing

K = 10  # neighbours
LEAST_IMAGES = 100  # ten to a tenth; fewer are not divided
_TENTHS = ["sparsest", *map(str, range(2, DECILES)), "densest"]
_NAMED, _SAID = 20, 5  # sparse images that are named in all, and in the sentence
_MUCH_WORSE = 0.5  # of what the middle tenths have
_Z = 1.959964


class Neighbourhoods(NamedTuple):
    """What the sample's neighbours say, image by image.

    density, tenths: see metrics.density. consistency: in [0, 1] on average, above chance; None without two views.
    """

    density: Float[Tensor, " n"]
    tenths: Int64[Tensor, " n"]
    consistency: Float[Tensor, " n"] | None

    @property
    def reliable(self) -> float | None:
        """The mean consistency, which everything about single regions is judged by."""
        return None if self.consistency is None else float(self.consistency.mean())


def neighbourhoods(look: Look) -> Neighbourhoods:
    """Of at least `LEAST_IMAGES` images."""
    if len(look.features) < LEAST_IMAGES:
        raise InputError(f"Neighbourhoods of {len(look.features)} images were asked for; give {LEAST_IMAGES} or more.")
    density = density_of(nearest_neighbours(look.features, K))
    return Neighbourhoods(density, density_deciles(density), consistency_of(look))


def consistency_of(look: Look) -> Float[Tensor, " n"] | None:
    if look.views is None:
        return None
    first, second = (_neighbours(view) for view in look.views.unbind(1))
    return neighbourhood_consistency(first, second)


def _neighbours(features: Tensor) -> Neighbours:
    return nearest_neighbours(features, K)


def by_tenth(values: Float[Tensor, " n"], tenths: Int64[Tensor, " n"]) -> list[Estimate]:
    """The mean of each tenth and its 95 % interval (normal)."""
    found = []
    for tenth in range(DECILES):
        chosen = values[tenths == tenth].double()
        margin = _Z * float(chosen.std()) / math.sqrt(len(chosen))
        found.append(Estimate(float(chosen.mean()), float(chosen.mean()) - margin, float(chosen.mean()) + margin))
    return found


# --- findings ---------------------------------------------------------------------------------------------------------


_MORE_TRAINING = (
    "Do not take the sizes and densities below for those of classes. Train longer or with a larger network, or label "
    "a few hundred images and evaluate: labels settle it."
)
_A_NETWORK = (
    "Take what follows for a description of colours and layout, no more. Train, then diagnose the run; or look again "
    "with a pretrained network (--backbone NAME --weights FILE.safetensors)."
)


def neighbourhood_finding(near: Neighbourhoods, learnt: bool = True) -> Finding | None:
    """Whether two views of an image find the same neighbours: the condition for trusting anything local.

    learnt: whether the features come from a network, which could learn more.
    """
    if near.consistency is None:
        return None
    overall, tenths = float(near.consistency.mean()), by_tenth(near.consistency, near.tenths)
    middle = _middle([one.value for one in tenths])
    numbers = {"percent": 100 * overall, "needed": 100 * RELIABLE, "by_tenth": [100 * one.value for one in tenths]}
    chart = _chart("Neighbours that two views of an image share, above chance.", "shared neighbours, %", tenths, 100)
    evidence = (
        f"Of each image's {K} nearest images, how many are the same when another crop of it is looked at; chance "
        "is taken off. Where little is shared, who is near whom is an accident of the crop. On CIFAR-100-LT it "
        "was 3 to 8 %, and there neither region sizes nor densities told common classes from rare ones (docs/log.md, "
        "docs/when-gh-hurts.md)."
    )
    asked = Question("neighbourhoods", "Does the network know what is alike?", numbers, evidence, chart)
    if overall < RELIABLE:
        return asked.answer(
            "warning",
            f"Not reliable here: two views of an image share {100 * overall:.0f}{PERCENT} of their neighbours, and "
            f"below {100 * RELIABLE:.0f}{PERCENT} nothing about rare images, regions or skew can be read off.",
            _MORE_TRAINING if learnt else _A_NETWORK,
        )
    if tenths[0].high < _MUCH_WORSE * middle:
        return asked.answer(
            "warning",
            f"Yes in the middle ({100 * middle:.0f}{PERCENT} shared neighbours), but hardly where images are sparse "
            f"({100 * tenths[0].value:.0f}{PERCENT}): what is rare is not told apart from odd pictures.",
            "Look at the sparsest images before trusting any of them to be of a rare kind; a few labels there say "
            "most.",
        )
    return asked.answer(
        "ok",
        f"Two views of an image share {100 * overall:.0f}{PERCENT} of their neighbours, and "
        f"{100 * tenths[0].value:.0f}{PERCENT} where images are sparsest.",
    )


def density_finding(near: Neighbourhoods, locations: Sequence[str]) -> Finding:
    """How unevenly the images lie, and which lie most alone. locations: of the images, for people."""
    tenths = by_tenth(near.density, near.tenths)
    ratio = math.exp(tenths[-1].value - tenths[0].value)
    alone = [locations[i] for i in near.density.argsort(stable=True)[:_NAMED].tolist()]
    numbers = {"ratio": ratio, "by_tenth": [one.value for one in tenths], "sparsest": alone}
    chart = _chart("Local density by tenths (minus the log of the mean distance to 10 neighbours).", "density", tenths)
    evidence = (
        "Density is weak evidence of rarity: on CIFAR-100-LT its rank correlation with the sizes of the classes "
        "was below 0.1, and the sparsest tenth held about a third more of the rare classes than its share, hardly more "
        "than on balanced data (docs/results.md). "
        "Odd pictures (blurred, cropped, wrong) are sparse, too."
    )
    copies = float((near.density > math.log(1e4)).float().mean())
    numbers["copies_percent"] = 100 * copies
    asked = Question("density", "How unevenly do the images lie?", numbers, evidence, chart)
    if copies > 0.05:
        return asked.answer(
            "warning",
            f"{100 * copies:.0f}{PERCENT} of the images have {K} copies or near-copies of themselves among those "
            "looked at.",
            "Near-duplicates crowd out what is rare: `evensphere data inspect` lists them, and near_duplicates=once "
            "lets a burst count once in GH's statistics.",
        )
    trusted = near.reliable is None or near.reliable >= RELIABLE
    return asked.answer(
        "info",
        f"The neighbours of the sparsest tenth are {ratio:.1f} times as far away as those of the densest. Most alone"
        f"{'' if trusted else ' (not reliable here)'}: {listing(alone[:_SAID])}.",
        f"Look at these ({_NAMED} are in diagnosis.json): what is rare is among such images, with what is merely odd.",
    )


def detail_finding(look: Look, near: Neighbourhoods) -> Finding:
    """How much the network tells apart in each tenth: RankMe and, with views, LiDAR."""
    members = [near.tenths == tenth for tenth in range(DECILES)]
    ranks: dict[str, list[float]] = {"RankMe": [rank_me(look.features[one]) for one in members]}
    if look.views is not None:
        ranks["LiDAR"] = [lidar(look.views[one]) for one in members]
    name, values = list(ranks.items())[-1]
    middle, sparsest = _middle(values), values[0]
    each = int(members[0].sum())
    numbers: dict[str, Any] = {"images_per_tenth": each} | {key.lower(): found for key, found in ranks.items()}
    chart = Chart(
        "bars",
        "Directions by which images are told apart, by tenths of density.",
        _TENTHS,
        "tenth",
        "dimensions",
        ranks,
    )
    evidence = (
        f"{name} of {each} images each, so the tenths can be compared with each other, but not with other runs. LiDAR "
        "counts directions in which images differ more than views of one image do."
    )
    asked = Question("detail", "Does it tell sparse images apart?", numbers, evidence, chart)
    if sparsest < _MUCH_WORSE * middle:
        return asked.answer(
            "warning",
            f"Less than others: {sparsest:.0f} directions ({name}) in the sparsest tenth, {middle:.0f} in the middle.",
            "What is sparse has been neglected. Train longer, or weigh it up: GH (--arm gh) and bcl were made for "
            "that; compare with a run without them.",
        )
    return asked.answer(
        "ok",
        f"As well as others: {sparsest:.0f} directions ({name}) in the sparsest tenth, {middle:.0f} in the middle.",
    )


def trend_finding(course: Sequence[tuple[float, Float[Tensor, " n"]]], tenths: Int64[Tensor, " n"]) -> Finding | None:
    """How the sparse tenth fared over the run. course: (epoch, consistency of each image) at each checkpoint looked at,
    by epoch. tenths: of density at the last, the same images throughout. None for fewer than two checkpoints."""
    if len(course) < 2:
        return None
    tracks = [by_tenth(consistency, tenths) for _, consistency in course]
    sparse = [100 * track[0].value for track in tracks]
    rest = [100 * sum(one.value for one in track[1:]) / (DECILES - 1) for track in tracks]
    best = max(range(len(tracks)), key=lambda i: tracks[i][0].value)
    lost = tracks[best][0].low > tracks[-1][0].high
    numbers = {"epochs": [epoch for epoch, _ in course], "sparsest_percent": sparse, "rest_percent": rest}
    chart = Chart(
        "lines",
        "Neighbours that two views share, over the run.",
        numbers["epochs"],
        "epoch",
        "shared neighbours, %",
        {"sparsest tenth": sparse, "all others": rest},
    )
    evidence = (
        "The same images at every checkpoint: the sparsest tenth at the end, by the neighbours that two views "
        "share. It is no accuracy; on CIFAR-100-LT later checkpoints were better for the rare classes throughout, "
        "so the last one is the default (docs/results.md, Signals)."
    )
    asked = Question("trend", "How did the sparse images fare?", numbers, evidence, chart)
    at = f"{sparse[best]:.0f}{PERCENT} at epoch {course[best][0]:g}"
    if lost and rest[-1] >= rest[best]:
        return asked.answer(
            "warning",
            f"They got worse while the others got better: {at}, {sparse[-1]:.0f}{PERCENT} at the end.",
            f"Compare the checkpoint of epoch {course[best][0]:g} on labelled images before you use the last.",
        )
    if lost:
        return asked.answer(
            "warning",
            f"They and the others got worse: {at}, {sparse[-1]:.0f}{PERCENT} at the end.",
            f"Compare the checkpoint of epoch {course[best][0]:g} on labelled images; train with a lower rate.",
        )
    if sparse[-1] < 100 * RELIABLE and rest[-1] < 100 * RELIABLE:
        return asked.answer(
            "info",
            f"Not reliable here: shared neighbours were {sparse[0]:.0f}{PERCENT} at epoch {course[0][0]:g} and "
            f"{sparse[-1]:.0f}{PERCENT} at the end, too few to tell (all others {rest[0]:.0f} and {rest[-1]:.0f}).",
        )
    return asked.answer(
        "ok",
        f"They did not lose: {sparse[0]:.0f}{PERCENT} shared neighbours at epoch {course[0][0]:g}, "
        f"{sparse[-1]:.0f}{PERCENT} at the end (all others {rest[0]:.0f} and {rest[-1]:.0f}).",
    )


def _middle(values: Sequence[float]) -> float:
    """The median over the tenths."""
    return float(torch.tensor(list(values)).median())


def _chart(caption: str, label: str, tenths: Sequence[Estimate], times: float = 1) -> Chart:
    return Chart(
        "bars",
        caption,
        _TENTHS,
        "tenth of the images, by local density",
        label,
        {label: [times * one.value for one in tenths]},
        {label: [(times * one.low, times * one.high) for one in tenths]},
    )
