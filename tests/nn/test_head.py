"""Heads: layer by layer what the papers say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evensphere.errors import InputError
from evensphere.nn.head import mlp


def layers(head: nn.Sequential) -> list[str]:
    """What the layers are, in words."""
    words = []
    for layer in head:
        if isinstance(layer, nn.Linear):
            words.append(f"{layer.in_features}-{layer.out_features}" + (" bias" if layer.bias is not None else ""))
        elif isinstance(layer, nn.BatchNorm1d):
            words.append(f"norm {layer.num_features}" + ("" if layer.affine else " plain"))
        else:
            words.append(type(layer).__name__)
    return words


def test_the_layers_are_in_the_papers_order() -> None:
    assert layers(mlp([5, 7, 3])) == ["5-7", "norm 7", "ReLU", "7-3"]
    assert layers(mlp([5, 7, 3], last_bias=True)) == ["5-7", "norm 7", "ReLU", "7-3 bias"]
    assert layers(mlp([5, 7, 3], last_bias=True, batch_norm=False)) == ["5-7 bias", "ReLU", "7-3 bias"]
    assert layers(mlp([5, 3], last_norm="affine")) == ["5-3", "norm 3"]
    deep = ["5-7", "norm 7", "ReLU", "7-8", "norm 8", "ReLU", "8-3", "norm 3 plain"]
    assert layers(mlp([5, 7, 8, 3], last_bias=True, last_norm="plain")) == deep
    assert mlp([5, 7, 3])(torch.zeros(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("widths", [[5], [5, 0, 3]])
def test_impossible_widths_are_refused(widths: list[int]) -> None:
    with pytest.raises(InputError, match="widths"):
        mlp(widths)
