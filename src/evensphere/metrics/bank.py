"""The only thing a metric sees: frozen features with the labels looked up for them."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor


class FeatureBank(NamedTuple):
    """Features of one split.

    features: float32 [N, D], finite, not normalised, of N >= 1 images.
    labels: int64 [N], each in [0, number of classes).
    numbers: int64 [N], which image of the split each is, so that predictions can be written down; None where nobody
        asks.
    """

    features: Float[Tensor, "n d"]
    labels: Int64[Tensor, " n"]
    numbers: Int64[Tensor, " n"] | None = None


class Banks(NamedTuple):
    """What a metric is a function of: the labelled splits, and how often each class was seen in pretraining.

    train: what probes are fitted on. validation: chooses settings, None where there is none. test: scored once.
    train_counts: images per class in *pretraining*, the counts behind many, medium and few.
    group_rule: "thirds" or "shots" (see metrics.groups).
    views: features of several random views of each of some pretraining images, whose labels nobody looks at; None where
        no metric asks for them.
    """

    train: FeatureBank
    validation: FeatureBank | None
    test: FeatureBank
    train_counts: list[int]
    group_rule: str
    views: Float[Tensor, "m q d"] | None = None
