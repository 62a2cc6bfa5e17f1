"""Finding more of a kind: test images as queries, train images as the gallery, by cosine similarity."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from evensphere.metrics.bank import Banks
from evensphere.metrics.classify import check_banks
from evensphere.metrics.groups import GROUPS, class_groups, group_accuracy

BLOCK_ENTRIES = 2**22  # similarities held at a time
TOP = (1, 10)


def retrieval(banks: Banks) -> dict[str, Any]:
    """Mean average precision by the query's class: how high images of its class stand when the gallery is sorted.

    The average precision of a query is the mean, over gallery images of its class, of the share of its class down to
    their ranks; equally similar images stand in the gallery's order. A class without queries, or without images in the
    gallery, has none. Chance is about the class's share of the gallery, so compare classes only where it is balanced.

    Returns, in percent: "many", "medium", "few", "std", "std_sample", "average", "per_class" of the average precision
    (see `groups.group_accuracy`); "test_images": queries in each group; "recall_at_1", "recall_at_10": the share of
    queries with at least one of their class among so many, by group and in average.
    """
    check_banks(banks)
    num_classes = len(banks.train_counts)
    gallery = F.normalize(banks.train.features, dim=1)
    queries, labels = F.normalize(banks.test.features, dim=1), banks.test.labels
    precision, hits = [], []
    for rows, own in zip(
        *(torch.split(x, max(1, BLOCK_ENTRIES // len(gallery))) for x in (queries, labels)), strict=True
    ):
        order = (rows @ gallery.T).sort(dim=1, descending=True, stable=True).indices
        same = banks.train.labels[order] == own[:, None]
        precision.append(average_precision(same))
        hits.append(torch.stack([same[:, :k].any(dim=1).double() for k in TOP]))
    judged = torch.isin(labels, banks.train.labels)
    groups = class_groups(banks.train_counts, banks.group_rule)
    sizes = torch.bincount(labels, minlength=num_classes).tolist()

    def by_group(values: Tensor) -> dict[str, Any]:
        per_class = _class_means(100 * values[judged], labels[judged], num_classes)
        return {**group_accuracy(per_class, banks.train_counts, banks.group_rule), "per_class": per_class}

    recalls = {f"recall_at_{k}": by_group(hit) for k, hit in zip(TOP, torch.cat(hits, dim=1), strict=True)}
    return {
        **by_group(torch.cat(precision)),
        "test_images": {g: sum(n for n, group in zip(sizes, groups, strict=True) if group == g) for g in GROUPS},
        **{name: {group: found[group] for group in (*GROUPS, "average")} for name, found in recalls.items()},
    }


def average_precision(same: Bool[Tensor, "q n"]) -> Float[Tensor, " q"]:
    """Of each row: the mean, over its True places, of the share of True down to there; 0 for a row without any."""
    ranks = torch.arange(1, same.shape[1] + 1, device=same.device)
    precision = same.cumsum(1).double() / ranks
    return (precision * same).sum(1) / same.sum(1).clamp(min=1)


def _class_means(values: Float[Tensor, " n"], labels: Int64[Tensor, " n"], num_classes: int) -> list[float | None]:
    totals = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, values.double())
    counts = torch.bincount(labels, minlength=num_classes)
    return [float(total / n) if n else None for total, n in zip(totals, counts, strict=True)]
