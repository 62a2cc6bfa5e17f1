"""Why GH does or does not help: what its surrogate labels know of the classes, measured on a run's kept checkpoints.

This is a look back with labels in hand; training never sees it. A checkpoint is shown the next epoch's views in
training batches, and its surrogate labels (of each, the region with the largest share) are held against the classes.

    information    normalised mutual information of surrogate labels and classes, and what chance gives
    population     pi against the true class sizes; effective number of regions
    ownership      which classes are the most frequent of a region, and how many of their images stand in one
    gradient       of GH's loss against the method's, on the encoder: ratio of lengths and cosine
    geometry       distances between the classes' centroids
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evensphere.data.source import Batch, Splits
from evensphere.engine.train import Training
from evensphere.gh.harmonizer import Harmonizer, anchor_scores, harmonization_loss
from evensphere.methods.base import Output
from evensphere.metrics.cluster import normalized_mutual_information, region_ownership
from evensphere.metrics.geometry import class_centroids, inter_class_uniformity, neighborhood_uniformity
from evensphere.metrics.groups import GROUPS, class_groups
from evensphere.metrics.signals import effective_number
from evensphere.ops.draw import permutation
from evensphere.ops.schedule import Progress
from evensphere.ops.sinkhorn import transport_plan
from evensphere.recipes.building import revisit
from evensphere.rundir import RunDir

_GRADIENT_BATCHES = 4  # whose gradients are compared, at every checkpoint


def look_back(run: RunDir, harmonizer: Harmonizer | None = None) -> list[dict[str, Any]]:
    """One record for each kept checkpoint of a finished run.

    harmonizer: whose anchors and temperatures are used for a run that has none of its own; its pi is then that of the
        checkpoint itself.
    """
    recipe = run.read_recipe()
    kept = [step for step in run.checkpoint_steps() if step % recipe["resolved"]["steps_per_epoch"] == 0]
    return [_look_at(run, step, harmonizer) for step in kept]


def own_harmonizer(run: RunDir) -> Harmonizer:
    """The harmonizer of a run of the arm gh, as it was at its first kept checkpoint."""
    training, _ = revisit(run, run.checkpoint_steps()[0])
    assert isinstance(training.harmonizer, Harmonizer)
    return training.harmonizer


class _Epoch(NamedTuple):
    """What a checkpoint makes of an epoch, batch by batch: which images, the scores of both views [2, B, K], and the
    features of view 1 (projector outputs)."""

    images: list[Tensor]
    scores: list[Tensor]
    features: list[Tensor]


def _look_at(run: RunDir, step: int, other: Harmonizer | None) -> dict[str, Any]:
    training, splits = revisit(run, step)
    training.method.train()
    progress = training.progress(min(step, training.total_steps - 1))
    own = training.harmonizer if isinstance(training.harmonizer, Harmonizer) else None
    harmonizer = own or other
    assert harmonizer is not None, "a run without a harmonizer needs another one's anchors"
    epoch = _see(training, harmonizer, progress)
    if own is not None and step >= own.warm_up.steps(progress):
        prior = own.prior
    else:  # pi does not act yet; this is what it would be
        nearest = torch.cat([scores[0].argmax(-1) for scores in epoch.scores])
        counts = torch.bincount(nearest, minlength=len(harmonizer.anchors)).float()
        prior = counts / counts.sum()
    record = {"step": step, "epoch": step // training.loader.steps_per_epoch}
    return record | _compare(epoch, harmonizer, prior, splits) | _gradients(training, harmonizer, prior, progress)


def _steps(training: Training, progress: Progress) -> Iterator[tuple[Batch, Progress]]:
    """The batches of the epoch that `progress` lies in."""
    per_epoch = training.loader.steps_per_epoch
    first = progress.epoch * per_epoch
    for step, batch in training.loader.batches(first, first + per_epoch):
        yield batch, training.progress(step)


def _forward(training: Training, batch: Batch, progress: Progress) -> Output:
    output: Output = training.method(training.views_of(batch, progress), batch.index, progress)
    return output


@torch.no_grad()
def _see(training: Training, harmonizer: Harmonizer, progress: Progress) -> _Epoch:
    epoch = _Epoch([], [], [])
    for batch, now in _steps(training, progress):
        embeddings = _forward(training, batch, now).embeddings[:2]
        epoch.images.append(batch.index)
        epoch.scores.append(anchor_scores(embeddings, harmonizer.anchors))
        epoch.features.append(embeddings[0].float())
    return epoch


def _compare(epoch: _Epoch, harmonizer: Harmonizer, prior: Tensor, splits: Splits) -> dict[str, Any]:
    all_labels, counts = splits.pretrain.labels(), splits.train_counts()
    assert all_labels is not None, "a look back needs labels"
    assert counts is not None
    labels, groups = all_labels[torch.cat(epoch.images)], class_groups(counts, splits.group_rule)
    settings = (harmonizer.sinkhorn_temperature, harmonizer.max_iterations, harmonizer.tolerance)
    plans = [transport_plan(scores, prior, *settings).assignment.argmax(-1) for scores in epoch.scores]
    surrogate, partner = torch.cat(plans, dim=1)
    nearest = torch.cat([scores[0].argmax(-1) for scores in epoch.scores])
    owner, at_home = region_ownership(surrogate, labels, len(prior), len(counts))
    centroids = class_centroids(torch.cat(epoch.features), labels, len(counts))
    per_class = {
        "at_home": 100 * at_home,
        "uniformity": inter_class_uniformity(centroids),
        "neighborhood": neighborhood_uniformity(centroids, min(10, len(counts) - 1)),
    }
    return {
        "nmi": normalized_mutual_information(surrogate, labels),
        # what so many regions and images give by chance: the classes dealt out anew
        "nmi_chance": normalized_mutual_information(
            surrogate, labels[permutation(0, "look back/chance", 0, len(labels))]
        ),
        "nmi_nearest": normalized_mutual_information(nearest, labels),
        "views_agree": 100 * float((surrogate == partner).float().mean()),
        "prior": sorted(prior.tolist(), reverse=True),
        "effective_regions": effective_number(prior),
        "class_sizes": sorted(counts, reverse=True),
        "effective_classes": effective_number(torch.tensor(counts) / sum(counts)),
        "owned_regions": {group: sum(groups[o] == group for o in owner.tolist() if o >= 0) for group in GROUPS},
    } | {name: _by_group(values, groups) for name, values in per_class.items()}


def _by_group(values: Tensor, groups: list[str]) -> dict[str, float]:
    members = {group: [i for i, one in enumerate(groups) if one == group] for group in GROUPS}
    means = {group: float(values[chosen].mean()) for group, chosen in members.items() if chosen}
    return means | {"average": float(values.mean())}


def _gradients(training: Training, harmonizer: Harmonizer, prior: Tensor, progress: Progress) -> dict[str, float]:
    """Of both losses at full weight, on the encoder's parameters; means over a few batches."""
    temperatures = (harmonizer.prediction_temperature, harmonizer.sinkhorn_temperature)
    parameters = [p for p in training.method.encoder.parameters() if p.requires_grad]
    ratios, cosines = [], []
    for number, (batch, now) in enumerate(_steps(training, progress)):
        if number == _GRADIENT_BATCHES:
            break
        output = _forward(training, batch, now)
        z1, z2 = output.embeddings[:2]
        gh = harmonization_loss(
            z1, z2, harmonizer.anchors, prior, *temperatures, harmonizer.max_iterations, harmonizer.tolerance
        )
        ssl_gradient = _flat(torch.autograd.grad(output.loss, parameters, retain_graph=True))
        gh_gradient = _flat(torch.autograd.grad(gh, parameters))
        ratios.append(float(gh_gradient.norm() / ssl_gradient.norm()))
        cosines.append(float(nn.functional.cosine_similarity(gh_gradient, ssl_gradient, dim=0)))
    return {"gradient_ratio": sum(ratios) / len(ratios), "gradient_cosine": sum(cosines) / len(cosines)}


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])
