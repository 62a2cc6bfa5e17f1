"""Linear probes on a few labels of each class, drawn several times: what a handful of labels is worth."""

from __future__ import annotations

from statistics import fmean, pstdev
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import logistic_probe
from evensphere.metrics.groups import group_accuracy
from evensphere.ops.draw import permutation

DRAWS = 5


def one_shot_probe(banks: Banks) -> dict[str, Any]:
    """The logistic probe on one label of each class, in the mean over five draws."""
    return few_shot_probe(banks, shots=1)


def five_shot_probe(banks: Banks) -> dict[str, Any]:
    """The logistic probe on five labels of each class, in the mean over five draws."""
    return few_shot_probe(banks, shots=5)


def few_shot_probe(banks: Banks, shots: int, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """`classify.logistic_probe` on `shots` train images of each class, at its default C, in the mean over draws.

    Nothing is chosen on validation: who has a few labels has no thousand others to choose by. A class with fewer train
    images gives all it has. shots, draws: at least 1. The seed addresses the draws.

    Returns the shared keys of `classify.scores`, the accuracies being means over draws, without "predicted",
    "intervals" and "unjudged", which are of one draw; "draws": the average of each; "draws_std": their standard
    deviation (ddof 0).
    """
    if shots < 1 or draws < 1:
        raise InputError(f"{shots} shots in {draws} draws were asked for; give at least 1 of both.")
    found = [
        logistic_probe(banks._replace(train=few_of_each(banks.train, shots, seed, draw), validation=None))
        for draw in range(draws)
    ]
    per_class = [_mean([one["per_class"][c] for one in found]) for c in range(len(banks.train_counts))]
    averages = [one["average"] for one in found]
    kept = {name: value for name, value in found[0].items() if name in ("test_images", "C")}
    return {
        **kept,
        **group_accuracy(per_class, banks.train_counts, banks.group_rule),
        "accuracy": fmean(one["accuracy"] for one in found),
        "per_class": per_class,
        "shots": shots,
        "draws": averages,
        "draws_std": pstdev(averages),
    }


def few_of_each(bank: FeatureBank, shots: int, seed: int, draw: int) -> FeatureBank:
    """`shots` images of each class, or all it has, in the bank's order."""
    keep = torch.zeros(len(bank.labels), dtype=torch.bool)
    for c in bank.labels.unique().tolist():
        own: Int64[Tensor, " m"] = (bank.labels == c).nonzero()[:, 0]
        keep[own[permutation(seed, f"few shots/{c}", draw, len(own))[:shots]]] = True
    return FeatureBank(bank.features[keep], bank.labels[keep])


def _mean(accuracies: list[float | None]) -> float | None:
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return fmean(known) if known else None
