"""From a frozen encoder to numbers: features of the labelled splits, then the metrics of them.

This is the only place where a label meets a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import Source, Splits, take
from evensphere.engine.embed import batch_size_for, batches_of, random_views
from evensphere.errors import InputError, unknown_name
from evensphere.metrics import CROPPED_TRAIN, DESCRIPTIONS, METRICS, SEVERAL_VIEWS
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.groups import GROUPS
from evensphere.ops.draw import permutation

_VIEWED, _VIEWS_EACH = 1000, 10  # pretraining images that are seen in several views, and how many
_QUICK_TRAIN, _QUICK_VALIDATION = 5000, 2000  # images looked at while training


def extract(encoder: nn.Module, source: Source, views: Views, cropped: bool = False) -> FeatureBank:
    """Features of every readable image of a labelled source, seen plainly or, `cropped`, through `Views.weak`.

    Raises InputError for a source without labels.
    """
    labels = source.labels()
    if labels is None:
        raise InputError(f"{source.name} has no labels; evaluation needs images in one sub-folder per class.")
    features, index = features_of(encoder, source, views, cropped)
    return FeatureBank(features, labels[index], index)


@torch.inference_mode()
def features_of(
    encoder: nn.Module, source: Source, views: Views, cropped: bool = False
) -> tuple[Float[Tensor, "n d"], Int64[Tensor, " n"]]:
    """Features of every readable image, float32 on the CPU, and which image each is of. No label is looked at."""
    like = next(encoder.parameters())
    was_training = encoder.training
    encoder.eval()
    features, kept = [], []
    for index, _, images in batches_of(source, batch_size_for(views)):
        pixels = views.weak(images, index) if cropped else views.plain(images)
        features.append(encoder(pixels.to(like)).float().cpu())
        kept.append(index)
    encoder.train(was_training)
    if not kept:
        raise InputError(f"No image of {source.name} can be read; are the files where they are said to be?")
    return torch.cat(features), torch.cat(kept)


@torch.inference_mode()
def features_of_views(
    encoder: nn.Module, source: Source, views: Views, count: int = _VIEWS_EACH
) -> Float[Tensor, "n q d"]:
    """Features of `count` random views of each readable image, as training draws them in its first epochs."""
    like, was_training = next(encoder.parameters()), encoder.training
    encoder.eval()
    features = []
    for index, _, images in batches_of(source, batch_size_for(views)):
        seen: list[Tensor] = []
        for epoch in range(-(-count // views.num_views)):
            seen += random_views(views, images, index, epoch)[: views.num_views]
        features.append(torch.stack([encoder(view.to(like)).float().cpu() for view in seen[:count]], dim=1))
    encoder.train(was_training)
    return torch.cat(features)


def build_banks(encoder: nn.Module, splits: Splits, views: Views, cropped: bool = False) -> Banks:
    """The banks of a data set's labelled splits. cropped: the images that probes are fitted on are (see `extract`)."""
    counts = splits.train_counts()
    if splits.probe is None or splits.test is None or counts is None:
        raise InputError(
            f"{splits.pretrain.name} has no labels to evaluate on; "
            "give `evensphere evaluate RUN --data FOLDER` a folder with one sub-folder per class."
        )
    return Banks(
        extract(encoder, splits.probe, views, cropped),
        None if splits.validation is None else extract(encoder, splits.validation, views),
        extract(encoder, splits.test, views),
        counts,
        splits.group_rule,
    )


class Evaluation(NamedTuple):
    """What metrics made of an encoder.

    results: by metric, ready to be written down. numbers: which images of the test split could be read; labels: theirs;
    predicted: the classes that each metric that classifies gave them.
    """

    results: dict[str, dict[str, Any]]
    numbers: Int64[Tensor, " n"]
    labels: Int64[Tensor, " n"]
    predicted: dict[str, Int64[Tensor, " n"]]


def evaluate_encoder(encoder: nn.Module, splits: Splits, views: Views, metrics: Sequence[str]) -> Evaluation:
    """Every metric asked for, by name, of the frozen encoder."""
    if not metrics:
        raise InputError("No metric was asked for; give --metric knn, say, or set metrics=knn in the recipe.")
    for name in metrics:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    kinds = {name in CROPPED_TRAIN for name in metrics}
    banks = {cropped: build_banks(encoder, splits, views, cropped) for cropped in kinds}
    if SEVERAL_VIEWS & set(metrics):
        some = _sample(splits.pretrain, _VIEWED, views.seed, "several views")
        banks[False] = banks[False]._replace(views=features_of_views(encoder, some, views))
    results = {}
    for name in metrics:
        module, _, function = METRICS[name].partition(":")
        metric = getattr(import_module(module), function)
        results[name] = dict(metric(banks[name in CROPPED_TRAIN]))
    predicted = {
        name: torch.tensor(result.pop("predicted")) for name, result in results.items() if "predicted" in result
    }
    test = next(iter(banks.values())).test
    assert test.numbers is not None, "banks are built with them"
    return Evaluation(results, test.numbers, test.labels, predicted)


def validation_monitor(
    splits: Splits, views: Views, metrics: Sequence[str], seed: int
) -> Callable[[nn.Module], dict[str, float | None]] | None:
    """Quick metrics on validation images, in all and by group, for use while training; None where there are no labels
    or no metrics.

    Returns {"knn": average, "knn_many": ..., "knn_medium": ..., "knn_few": ...} in percent for each metric.
    """
    for name in metrics:
        if name in DESCRIPTIONS:
            raise InputError(f"monitor = {name} was given, which is no accuracy to watch; choose knn or a probe.")
    if splits.probe is None or splits.validation is None or not metrics:
        return None
    quick = splits._replace(
        probe=_sample(splits.probe, _QUICK_TRAIN, seed, "monitor/train"),
        validation=None,
        test=_sample(splits.validation, _QUICK_VALIDATION, seed, "monitor/validation"),
    )

    def monitor(encoder: nn.Module) -> dict[str, float | None]:
        logged = {}
        for name, scores in evaluate_encoder(encoder, quick, views, metrics).results.items():
            logged[name] = scores["average"]
            logged |= {f"{name}_{group}": scores[group] for group in GROUPS}
        return logged

    return monitor


def _sample(source: Source, count: int, seed: int, purpose: str) -> Source:
    if len(source) <= count:
        return source
    return take(source, permutation(seed, purpose, 0, len(source))[:count].sort().values)
