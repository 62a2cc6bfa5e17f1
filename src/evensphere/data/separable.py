"""Filters with kernels of each image's own: every output row is a weighted sum of a few input rows, then every column.

Resampling and blurring are both that. The kernels are short and differ from image to image, so neither a convolution
(one kernel for all) nor a matrix product (mostly zeros) fits; an embedding bag, which reads only the rows that count,
is several times faster than both on a CPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from evensphere.ops.transfer import send


class Taps(NamedTuple):
    """Which input rows an output row reads, and with which weights; on the device of the images."""

    rows: Int[Tensor, "batch out taps"]
    weights: Float[Tensor, "batch out taps"]

    def of(self, images: slice) -> Taps:
        """Those of some of the images."""
        return Taps(self.rows[images], self.weights[images])

    def to(self, device: torch.device) -> Taps:
        return Taps(send(self.rows, device), send(self.weights, device))


def filter_separably(
    images: Float32[Tensor, "batch c h w"], rows: Taps, columns: Taps
) -> Float32[Tensor, "batch c height width"]:
    """`rows` over the height, then `columns` over the width. What comes out lies in memory column by column: all that
    follows works on such images as well, and turning them back would cost as much as the filter."""
    return _weigh_rows(_weigh_rows(images, rows).mT, columns).mT


def _weigh_rows(images: Float32[Tensor, "batch c h w"], taps: Taps) -> Float32[Tensor, "batch c height w"]:
    b, c, h, w = images.shape
    planes = torch.arange(0, b * c * h, h, device=images.device, dtype=taps.rows.dtype).view(b, c, 1)
    rows = (taps.rows.flatten(1)[:, None] + planes).view(-1, taps.rows.shape[2])
    weights = taps.weights.flatten(1)[:, None].expand(-1, c, -1).reshape(rows.shape)
    # the planes are copied here where they lie column by column, but a single one would not be: torch then takes other
    # loops, and the last bits of a view would tell whether its image was alone in its batch
    pixels = images.reshape(b * c * h, w).contiguous()
    weighed = embedding_bag(rows, pixels, mode="sum", per_sample_weights=weights)
    return weighed.view(b, c, -1, w)
