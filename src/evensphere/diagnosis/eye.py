"""What looks at images before any training: a network whose weights lie on the disk, or plain statistics."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from evensphere.data.augment import Views
from evensphere.data.source import Source
from evensphere.diagnosis.finding import Finding
from evensphere.diagnosis.simple import SIZE, SimpleStatistics
from evensphere.recipes.frozen import by_weights, views_for
from evensphere.recipes.part import Part


class Eye(NamedTuple):
    """network: from normalised images to features. views: of the images, as the network wants them. what: in words.
    learnt: whether the network has been trained. finding: how far its features can be trusted."""

    network: nn.Module
    views: Views
    what: str
    learnt: bool
    finding: Finding


_TITLE = "What are images compared by?"


def open_eye(source: Source, backbone: str | None, weights: str | Path | None) -> Eye:
    """For images of a source; backbone, weights: see `recipes.frozen.by_weights`. Raises InputError for weights that do
    not fit, or half of what is needed."""
    if backbone is None and weights is None:
        return _statistics(source)
    found = by_weights(source, backbone, weights)
    return Eye(found.encoder, found.views, f"by {found.made_by}", True, _learnt(found.made_by))


def _statistics(source: Source) -> Eye:
    views = views_for(source, Part("photos", size=SIZE))
    finding = Finding(
        "features",
        _TITLE,
        "info",
        "By their colours, layout and edges, not by what they show: nothing has been learnt from these images yet.",
        {"features": "a tiny copy, colour and edge histograms, whitened"},
        "The nearest image by these statistics is of the same class for 68 % of the Grocery Store photos, whose "
        "classes are mostly one scene each, and for 13 % of CIFAR-100 (guessing: 1 %; docs/log.md). In neither did "
        "densities or region sizes go with the sizes of the classes (rank correlations of -0.02 to +0.05).",
        "For a look at what is shown, give a pretrained network (--backbone NAME --weights FILE.safetensors), or "
        "diagnose the run after training.",
    )
    return Eye(SimpleStatistics(views.mean, views.std), views, "by simple statistics", False, finding)


def _learnt(name: str) -> Finding:
    return Finding(
        "features",
        _TITLE,
        "info",
        f"By the features of {name}, which has learnt from other images than these.",
        {"features": name},
        "What it was trained to tell apart it tells apart here, too; kinds that only your images have may look alike "
        "to it.",
        "Look at a few neighbours before you rely on it.",
    )
