"""Pictures can be read: the numbers along an axis do not run into each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from evensphere.reproduce import pictures


@pytest.mark.parametrize("largest", [0.02, 0.4, 0.9, 4.0, 400.0])
def test_numbers_along_an_axis_of_many_decades_do_not_collide(
    largest: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, file: drawn.append(figure))
    rows = [(f"{size:g}", size, size / 1.1, size * 1.1) for size in (0.0005, largest)]
    pictures.medians_picture(tmp_path / "x.png", {"s": rows}, "")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axes,) = figure.axes
    left, right = axes.get_xlim()
    shown = [label for label in axes.get_xticklabels() if label.get_text() and left <= label.get_position()[0] <= right]
    assert len(shown) >= 2
    boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
