"""A view of each image in one go on a CPU: crop, jitter, gray and normalisation while the image is in the core's cache.

torch would send a batch through some forty kernels, each of which reads and writes all of it and has hardly enough to
do for two cores. Here numba compiles the loops over one image's pixels, and threads share the images. The arithmetic is
that of data/separable.py and data/colour.py, operation by operation; it is compiled once per machine and kept on disk,
without the liberties (fused or reordered operations) that would make the last bits a matter of the machine.

B images, C = 3 channels, S the side of the view. Planes lie in memory column by column, as in data/separable.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from numba import njit
from torch import Tensor

from evensphere.data.colour import BRIGHTNESS, CONTRAST, HUE, LUMA, SATURATION
from evensphere.data.separable import Taps

_ZERO, _ONE, _TWO, _THREE, _FOUR, _SIX = (np.float32(x) for x in (0, 1, 2, 3, 4, 6))
_RED, _GREEN, _BLUE = (np.float32(weight) for weight in LUMA)


def _compiled(function: Any) -> Any:
    """By numba, kept for the next process where there is a place to keep it."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # neither beside this file nor in the user's cache
        return njit(nogil=True, error_model="numpy")(function)


def cut_and_colour(
    images: UInt8[Tensor, "batch 3 h w"] | Float32[Tensor, "batch 3 h w"],
    taps: tuple[Taps, Taps],
    operations: Int64[Tensor, "batch places"],
    amount: Float32[Tensor, "batch places"],
    gray: Bool[Tensor, " batch"],
    mean: Float32[Tensor, " 3"],
    scale: Float32[Tensor, " 3"],
    bounded: bool,
) -> Float32[Tensor, "batch 3 size size"]:
    """(view - mean) * scale in channels_last memory, the view being the image's crop, its operations one after the
    other, then gray where `gray` says so. All on the CPU.

    taps: rows and columns of the crop (see `crop_taps`). operations: BRIGHTNESS to NOTHING of data/colour.py. amount:
    their factors, of the hue its shift. bounded: whether the crop is cut to 0..1.
    """
    rows, columns = taps
    size, batch = rows.rows.shape[1], len(images)
    views = torch.empty(batch, size, size, 3)
    unit = 1 if images.is_floating_point() else 255
    per_image = (
        *(images, rows.rows, rows.weights / unit, columns.rows, columns.weights),
        *(operations, amount, gray, views),
    )
    arrays = [one.contiguous().numpy() for one in per_image]
    shared: tuple[Any, ...] = (mean.numpy(), scale.numpy(), bounded)
    threads = min(torch.get_num_threads(), batch)
    if threads == 1:
        _views(*arrays, *shared)
    else:
        bounds = [batch * i // threads for i in range(threads + 1)]
        with ThreadPoolExecutor(threads) as pool:
            shares = [pool.submit(_views, *(one[a:b] for one in arrays), *shared) for a, b in pairwise(bounds)]
        for share in shares:
            share.result()
    return views.permute(0, 3, 1, 2)


@_compiled
def _views(images, rows, row_weights, columns, column_weights, operations, amount, gray, views, mean, scale, bounded):
    """`cut_and_colour` of all images given."""
    size = views.shape[1]
    row, column = np.empty(images.shape[3], np.float32), np.empty(size, np.float32)
    columns_first = np.empty((images.shape[3], size), np.float32)
    planes = np.empty((3, size * size), np.float32)
    luma = np.empty(size * size, np.float32)
    for i in range(len(images)):
        for channel in range(3):
            _filter_rows(images[i, channel], rows[i], row_weights[i], row, columns_first)
            _filter_columns(columns_first, columns[i], column_weights[i], column, planes[channel])
        if bounded:
            _blend(planes, _ONE, _ZERO)
        for place in range(operations.shape[1]):
            operation, x = operations[i, place], amount[i, place]
            if operation == BRIGHTNESS:
                _blend(planes, x, _ZERO)
            elif operation == CONTRAST:
                _grey(planes, luma)
                _blend(planes, x, (_ONE - x) * _mean(luma))
            elif operation == SATURATION:
                _grey(planes, luma)
                _saturate(planes, luma, x)
            elif operation == HUE:
                _turn(planes, x)
        if gray[i]:
            _grey(planes, luma)
            for channel in range(3):
                planes[channel] = luma
        _interleave(planes, mean, scale, views[i])


@_compiled
def _filter_rows(image, rows, weights, row, filtered):
    """Each of the S rows of the crop from the image's; written as columns. Here and below arrays are indexed, never
    sliced: a slice is an object, which would cost more than the few numbers it holds."""
    width, size = filtered.shape
    for i in range(size):
        for j in range(width):
            row[j] = _ZERO
        for tap in range(rows.shape[1]):
            source, weight = rows[i, tap], weights[i, tap]
            if weight != _ZERO:
                for j in range(width):
                    row[j] += weight * np.float32(image[source, j])
        for j in range(width):
            filtered[j, i] = row[j]


@_compiled
def _filter_columns(filtered, columns, weights, column, plane):
    size = filtered.shape[1]
    for j in range(size):
        for i in range(size):
            column[i] = _ZERO
        for tap in range(columns.shape[1]):
            source, weight = columns[j, tap], weights[j, tap]
            if weight != _ZERO:
                for i in range(size):
                    column[i] += weight * filtered[source, i]
        for i in range(size):
            plane[j * size + i] = column[i]


@_compiled
def _blend(planes, factor, offset):
    """factor * pixel + offset, cut to 0..1."""
    for channel in range(3):
        plane = planes[channel]
        for i in range(len(plane)):
            plane[i] = min(max(plane[i] * factor + offset, _ZERO), _ONE)


@_compiled
def _saturate(planes, luma, factor):
    """`adjust_saturation`."""
    for channel in range(3):
        plane = planes[channel]
        for i in range(len(plane)):
            plane[i] = min(max(plane[i] * factor + luma[i] * (_ONE - factor), _ZERO), _ONE)


@_compiled
def _grey(planes, luma):
    red, green, blue = planes[0], planes[1], planes[2]
    for i in range(len(luma)):
        luma[i] = red[i] * _RED + green[i] * _GREEN + blue[i] * _BLUE


@_compiled
def _mean(luma):
    """Eight sums side by side, so that they fill a register."""
    sums = np.zeros(8, np.float32)
    whole = len(luma) - len(luma) % 8
    for i in range(0, whole, 8):
        for lane in range(8):
            sums[lane] += luma[i + lane]
    for i in range(whole, len(luma)):
        sums[0] += luma[i]
    return sums.sum() / np.float32(len(luma))


@_compiled
def _turn(planes, shift):
    """`adjust_hue`, in its letters."""
    red, green, blue = planes[0], planes[1], planes[2]
    turn = _SIX * shift
    to_red = (turn + _THREE) % _SIX - _THREE
    to_green = (turn - _TWO + _THREE) % _SIX - _THREE
    to_blue = (turn - _FOUR + _THREE) % _SIX - _THREE
    for i in range(len(red)):
        r, g, b = red[i], green[i], blue[i]
        high, low = max(max(r, g), b), min(min(r, g), b)
        extent, rise = high - low, high - _TWO * low
        angle = g - r + b + rise
        if g < b:
            angle = -angle
        red[i] = min(max(abs(abs(angle + extent * to_red) - _THREE * extent) - rise, low), high)
        green[i] = min(max(abs(abs(angle + extent * to_green) - _THREE * extent) - rise, low), high)
        blue[i] = min(max(abs(abs(angle + extent * to_blue) - _THREE * extent) - rise, low), high)


@_compiled
def _interleave(planes, mean, scale, view):
    """Normalise, and turn planes of columns into rows of pixels."""
    size = len(view)
    for channel in range(3):
        plane, centre, factor = planes[channel], mean[channel], scale[channel]
        for i in range(len(plane)):
            plane[i] = (plane[i] - centre) * factor
    for i in range(size):
        for j in range(size):
            for channel in range(3):
                view[i, j, channel] = planes[channel, j * size + i]
