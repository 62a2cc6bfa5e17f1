"""Cross-view entropy: gradients and precision; its value is tested where methods use it."""

from __future__ import annotations

import math

import torch

from evensphere.ops.crossview import cross_view_entropy


def test_two_views_predict_each_other() -> None:
    scores = torch.tensor([[[0.0, 0.0]], [[math.log(3.0), 0.0]]], dtype=torch.float64)
    labels = torch.tensor([[[1.0, 0.0]], [[0.25, 0.75]]], dtype=torch.float64)
    expected = (-math.log(0.75) + math.log(2.0)) / 2  # view 2 predicts view 1's label and the other way round
    assert torch.allclose(cross_view_entropy(scores, labels, 1.0), torch.tensor([expected], dtype=torch.float64))


def test_a_third_view_without_a_label_predicts_both() -> None:
    scores, labels = torch.zeros(3, 1, 2), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    scores[2, 0, 0] = math.log(3.0)
    expected = (2 * math.log(2.0) - math.log(0.75) - math.log(0.25)) / 4
    assert torch.allclose(cross_view_entropy(scores, labels, 1.0), torch.tensor([expected]))


def test_autocast_does_not_lower_the_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.rand(2, 5, 7, generator=generator), torch.rand(2, 5, 7, generator=generator).softmax(-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = cross_view_entropy(scores, labels, 0.1)
    assert torch.equal(lowered, cross_view_entropy(scores, labels, 0.1))
    halved = cross_view_entropy(scores.bfloat16(), labels, 0.1)
    assert halved.dtype == torch.float32
