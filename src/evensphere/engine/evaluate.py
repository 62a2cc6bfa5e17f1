"""From a frozen encoder to numbers: features of the labelled splits, then the metrics of them.

This is the only place where a label meets a feature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import ArraySource, Batch, Source, Splits, UnreadableImage, take
from evensphere.errors import InputError
from evensphere.metrics import METRICS
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import knn, knn_accuracy
from evensphere.ops.draw import permutation

_BATCH = 512
_QUICK_TRAIN, _QUICK_VALIDATION = 5000, 2000  # images a kNN during training looks at


@torch.inference_mode()
def extract(encoder: nn.Module, source: Source, views: Views, passes: int = 1) -> FeatureBank:
    """Features of every readable image of a labelled source.

    passes: 1 takes the plain image; more take that many random views as `views` draws them (the paper's probe sees its
        training images cropped and flipped). Raises InputError for a source without labels.
    """
    labels = source.labels()
    if labels is None:
        raise InputError(f"{source.name} has no labels; evaluation needs images in one sub-folder per class.")
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    features: list[list[Tensor]] = [[] for _ in range(passes)]
    kept: list[Tensor] = []
    for index, images in _batches(source):
        kept.append(index)
        for number in range(passes):
            pixels = views.plain(images) if passes == 1 else _random_view(views, images, index, number)
            pixels = pixels.to(device, memory_format=torch.channels_last)
            features[number].append(encoder(pixels).float().cpu())
    encoder.train(was_training)
    return FeatureBank(torch.stack([torch.cat(one) for one in features]), labels[torch.cat(kept)])


def build_banks(
    encoder: nn.Module, splits: Splits, views: Views, probe_views: Views | None = None, passes: int = 1
) -> Banks:
    """The banks of a data set's labelled splits. `probe_views`, `passes`: of the images the probe is fitted on."""
    counts = splits.train_counts()
    if splits.probe is None or splits.test is None or counts is None:
        raise InputError(
            f"{splits.pretrain.name} has no labels to evaluate on; "
            "give `evensphere evaluate RUN --data FOLDER` a folder with one sub-folder per class."
        )
    return Banks(
        extract(encoder, splits.probe, probe_views or views, passes),
        None if splits.validation is None else extract(encoder, splits.validation, views),
        extract(encoder, splits.test, views),
        counts,
        splits.group_rule,
    )


def evaluate_encoder(banks: Banks, metrics: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every metric asked for, by name, with its options."""
    results = {}
    for name, options in metrics.items():
        module, _, function = METRICS[name].partition(":")
        results[name] = dict(getattr(import_module(module), function)(banks, **options))
    return results


def untrained_knn(encoder: nn.Module, splits: Splits, views: Views) -> dict[str, Any]:
    """What kNN makes of random features, as the floor to compare with; `encoder` has its initial weights."""
    return dict(knn(build_banks(encoder, splits, views)))


def validation_monitor(splits: Splits, views: Views, seed: int) -> Callable[[nn.Module], dict[str, float]] | None:
    """A quick kNN on validation images for use while training, or None where there are no labels."""
    if splits.probe is None or splits.validation is None:
        return None
    train = _sample(splits.probe, _QUICK_TRAIN, seed, "monitor/train")
    validation = _sample(splits.validation, _QUICK_VALIDATION, seed, "monitor/validation")

    def monitor(encoder: nn.Module) -> dict[str, float]:
        return {"knn": knn_accuracy(extract(encoder, train, views), extract(encoder, validation, views))}

    return monitor


def _sample(source: Source, count: int, seed: int, purpose: str) -> Source:
    if len(source) <= count:
        return source
    return take(source, permutation(seed, purpose, 0, len(source))[:count].sort().values)


def _random_view(views: Views, images: Tensor | list[Tensor], index: Tensor, number: int) -> Float[Tensor, "b c h w"]:
    """One random view; the pass takes the place of the epoch."""
    if isinstance(images, Tensor):
        return views(Batch(images, index), number)[0]
    crops = [views.crop_one(image, number, 0, int(i)) for image, i in zip(images, index, strict=True)]
    return views(Batch((torch.stack(crops),), index), number)[0]


def _batches(source: Source) -> Iterator[tuple[Tensor, Tensor | list[Tensor]]]:
    """(index, images): one tensor for images of one size, else a list; unreadable images are passed over."""
    for index in torch.split(torch.arange(len(source)), _BATCH):
        if isinstance(source, ArraySource):
            yield index, source.images[index]
            continue
        read: dict[int, Tensor] = {}
        for i in index.tolist():
            try:
                read[i] = source.read(i)
            except UnreadableImage:
                continue
        if read:
            yield torch.tensor(list(read)), list(read.values())
