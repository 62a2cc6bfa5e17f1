"""Which of two arms serves anybody's own images better, from a few labels a class: cross-validation, paired.

Both encoders see the same labelled images. In each round they are dealt into parts, in the same way for both sides; a
classifier is fitted on all parts but one and predicts that one, until every image has been predicted. What an image
counts is how often it was right, in the mean over rounds; the two sides are compared image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from lightning_fabric import Fabric
from torch import Tensor

from evensphere.compare.difference import Comparison, Difference
from evensphere.compare.sides import two_sides
from evensphere.data.augment import Views
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import features_of
from evensphere.errors import InputError, unknown_name
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import knn, logistic_probe
from evensphere.metrics.intervals import Paired, images_to_settle, over_classes, paired_interval, sign_flip_p
from evensphere.ops.draw import permutation
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, collection
from evensphere.recipes.trust import trusting
from evensphere.report.wording import count
from evensphere.rundir import RunDir

CLASSIFIERS: dict[str, Callable[[Banks], dict[str, Any]]] = {"probe": logistic_probe, "knn": knn}
ROUNDS, PARTS = 5, 5


def compare_on_labels(
    labels: Sequence[str],
    runs: Sequence[Path | str] = (),
    first: Sequence[Path | str] = (),
    second: Sequence[Path | str] = (),
    metric: str | None = None,
    trust: bool = False,
) -> Comparison:
    """Compare two arms on labelled images of the user's own.

    labels: a csv table or list with labels, class folders ..., or several that are one collection; every image needs a
        label. Classes with one label are left out, since they cannot be learnt and asked for at once.
    runs, first, second: see `sides.two_sides`. metric: "probe" (the default) or "knn".
    trust: whether code of the user's own, which a run's recipe names, may run.
    The interval takes the images' outcomes for independent, which cross-validation makes them only nearly.
    Raises InputError for images without labels, or fewer than two classes with two labels.
    """
    metric = metric or "probe"
    if metric not in CLASSIFIERS:
        raise unknown_name("metric for a few labels", metric, CLASSIFIERS)
    sides = two_sides(*([Path(folder) for folder in folders] for folders in (runs, first, second)))
    outcomes = []
    for pair in sides.pairs:
        with trusting(trust):
            banks = [_embedded(RunDir(run.folder), labels) for run in pair]
        if not torch.equal(banks[0].labels, banks[1].labels):
            raise InputError("The two encoders could not read the same of the labelled images; are all readable?")
        outcomes.append([right_by_image(bank, metric) for bank in banks])
    kept = _with_partners(banks[0]).labels.numpy()
    classes, sizes = np.unique(kept, return_counts=True)
    weight = 100 / (len(classes) * sizes[np.searchsorted(classes, kept)])
    pairs = [Paired((mine - theirs) * weight, kept) for mine, theirs in outcomes]
    first_right, second_right = (float(np.mean([(both[k] * weight).sum() for both in outcomes])) for k in (0, 1))
    table = np.array([[pair.shares[kept == c].sum() * len(classes) for c in classes] for pair in pairs])
    mean_shares: np.ndarray = np.mean([pair.shares for pair in pairs], axis=0)
    change = paired_interval(pairs, same_images=True)
    difference = Difference(first_right, second_right, change, sign_flip_p(mean_shares), over_classes(table))
    images = paired_interval([Paired(mean_shares, kept)], same_images=True)
    alone = len(banks[0].labels) - len(kept)
    notes = [f"{count(alone, 'image')} of classes with one label left out"] if alone else []
    notes.append(_how_many_more(change.settled, images_to_settle(images, len(kept)), len(kept), len(classes)))
    sides = sides._replace(cautions=[*sides.cautions, *notes])
    return Comparison(sides, metric, "labelled", len(kept), {"average": difference})


def right_by_image(bank: FeatureBank, metric: str, rounds: int = ROUNDS, seed: int = 0) -> Float64[np.ndarray, " n"]:
    """How often each image of a class with two labels or more was predicted right, as a share of the rounds.

    The parts of a round depend on the labels and the seed alone, so they are the same for every encoder.
    """
    bank = _with_partners(bank)
    right = np.zeros(len(bank.labels))
    for one in range(rounds):
        part = dealt(bank.labels, PARTS, seed, one)
        for number in range(PARTS):
            held = part == number
            if held.any():
                train, test = (FeatureBank(bank.features[of], bank.labels[of]) for of in (~held, held))
                counts = torch.bincount(bank.labels).tolist()
                predicted = CLASSIFIERS[metric](Banks(train, None, test, counts, "thirds"))["predicted"]
                right[held.numpy()] += np.array(predicted) == test.labels.numpy()
    return right / rounds


def dealt(labels: Int64[Tensor, " n"], parts: int, seed: int, time: int) -> Int64[Tensor, " n"]:
    """The part of each image: a class's images are dealt out one after the other in a random order, beginning with a
    part of the class's own, so that parts are of about one size and no part holds all of a class of two or more."""
    part = torch.zeros_like(labels)
    start = 0
    for c in labels.unique().tolist():
        own = (labels == c).nonzero()[:, 0]
        order = permutation(seed, f"parts/{c}", time, len(own))
        part[own[order]] = (torch.arange(len(own)) + start) % parts
        start += len(own)
    return part


def _with_partners(bank: FeatureBank) -> FeatureBank:
    """The images of classes with two labels or more."""
    sizes = torch.bincount(bank.labels)
    if int((sizes >= 2).sum()) < 2:
        raise InputError("Fewer than two classes have two labels; give at least two labels of at least two classes.")
    kept = sizes[bank.labels] >= 2
    return FeatureBank(bank.features[kept], bank.labels[kept])


def _embedded(run: RunDir, paths: Sequence[str]) -> FeatureBank:
    """What a run's encoder makes of the labelled images, read like its own."""
    recipe = Recipe.from_json(run.read_recipe())
    read = {name: recipe.resolved[name] for name in ("channels", "bits") if name in recipe.resolved}
    source = build("data", collection(*paths), **read).pretrain
    labels = source.labels()
    if labels is None:
        raise InputError(
            f"{source.name} has no label for every image; give class folders, or a list or table with labels."
        )
    views: Views = build("views", recipe.views, seed=recipe.seed)
    encoder = build_encoder(recipe, source.channels)
    load_encoder(run, encoder)
    features, numbers = features_of(encoder.to(Fabric(accelerator="auto", devices=1).device), source, views)
    return FeatureBank(features, labels[numbers], numbers)


def _how_many_more(settled: bool, needed: int | None, images: int, classes: int) -> str:
    """What to do about an interval that contains 0."""
    if settled:
        return f"settled by {count(images, 'label')} of {classes} classes"
    if needed is None:
        return "no difference at all was seen, so no number of labels can be named that would settle it"
    more = max(0, needed - images)
    return (
        f"not settled: if the difference is as large as it seems, about {count(more, 'more label')} would show it four "
        f"times in five ({-(-needed // classes):,} a class in all)"
        if more
        else "not settled, and more labels would not help: the seeds differ too much, so train more of them"
    )
