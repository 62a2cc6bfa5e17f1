"""The circles side by side, the two numbers below them, and the way there as an animation."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from evensphere.disk import atomic_write, make_folder
from evensphere.ops.draw import uniform
from evensphere.toy.learn import ARMS, COUNTS, HEAD_SHARE, Outcome, head_arc

# Okabe & Ito's colours, told apart by people with any colour vision; markers say the same once more
_CLUSTERS = (("head", "#0072B2", "o", 14), ("middle", "#E69F00", "s", 22), ("tail", "#D55E00", "^", 80))
_FRAME_MILLISECONDS, _LAST_FRAME_MILLISECONDS = 90, 2500


def toy_picture(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write a PNG of the first seed's circles with the caption of all seeds, and return its path."""
    figure = Figure(figsize=(10, 6.6))
    first = min(outcome.seed for outcome in outcomes)
    panels = figure.subplots(1, len(ARMS))
    for panel, arm in zip(panels, ARMS, strict=True):
        (outcome,) = [one for one in outcomes if one.arm == arm and one.seed == first]
        _draw_circle(panel, outcome, outcome.points)
        panel.set_title(ARMS[arm], fontsize=17, fontweight="bold", pad=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False, fontsize=11)
    figure.text(0.5, 0.02, toy_caption(outcomes), ha="center", va="bottom", fontsize=11.5, linespacing=1.5)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.15, top=0.87, wspace=0.02)
    make_folder(out.parent)
    atomic_write(out, _png(figure))
    return out


def toy_caption(outcomes: Sequence[Outcome]) -> str:
    """What the seeds say: the head's arc and the closest pair of centroids, mean and range, arm against arm."""
    seeds = len({outcome.seed for outcome in outcomes})
    arcs = {arm: [one.head_arc for one in outcomes if one.arm == arm] for arm in ARMS}
    closest = {arm: [one.closest_centroids for one in outcomes if one.arm == arm] for arm in ARMS}
    smaller = sum(gh < plain for plain, gh in zip(arcs["plain"], arcs["gh"], strict=True))
    wider = sum(gh > plain for plain, gh in zip(closest["plain"], closest["gh"], strict=True))
    sizes = ", ".join(f"{count:,}" for count in COUNTS)
    return (
        f"Clusters of {sizes} points, {seeds} seed(s): mean (range).\n"
        f"Arc that holds {HEAD_SHARE:.0%} of the largest: {_change(arcs)}; smaller with GH in {smaller} of {seeds}.\n"
        f"Closest pair of cluster centres: {_change(closest)}; wider with GH in {wider} of {seeds}."
    )


def _change(degrees: dict[Any, list[float]]) -> str:
    plain, gh = (f"{fmean(values):.0f}° ({min(values):.0f}-{max(values):.0f})" for values in degrees.values())
    return f"{plain} alone, {gh} with GH"


def toy_animation(outcomes: Sequence[Outcome], out: Path) -> Path:
    """Write a GIF of how the first seed's circles came about, and return its path."""
    first = min(outcome.seed for outcome in outcomes)
    shown = {outcome.arm: outcome for outcome in outcomes if outcome.seed == first}
    frames = []
    for moments in zip(*(shown[arm].snapshots for arm in ARMS), strict=True):
        figure = Figure(figsize=(7, 4))
        for panel, arm, (step, points) in zip(figure.subplots(1, len(ARMS)), ARMS, moments, strict=True):
            _draw_circle(panel, shown[arm], points)
            panel.set_title(f"{ARMS[arm]}, step {step:,}", fontsize=12)
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.9, wspace=0.02)
        with Image.open(io.BytesIO(_png(figure, dpi=80))) as frame:
            frames.append(frame.convert("RGB").quantize(48))
    durations = [_FRAME_MILLISECONDS] * (len(frames) - 1) + [_LAST_FRAME_MILLISECONDS]
    gif = io.BytesIO()
    frames[0].save(gif, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    make_folder(out.parent)
    atomic_write(out, gif.getvalue())
    return out


def _draw_circle(panel: Any, outcome: Outcome, points: Tensor) -> None:
    """Points on the circle, each cluster on a ring of its own so that all can be seen, the head's arc outside."""
    turn = torch.linspace(0, 2 * math.pi, 361)
    panel.plot(turn.cos(), turn.sin(), color="#bbbbbb", linewidth=1, zorder=0)
    for number, anchor in enumerate(outcome.anchors):
        entry = {"label": "anchors of GH"} if number == 0 else {}
        panel.plot(*torch.stack([0.25 * anchor, 0.65 * anchor]).T, color="#666666", linewidth=1.2, zorder=1, **entry)
    scatter = uniform(outcome.seed, "toy/picture", 0, torch.arange(len(points)), 1)
    rings = points * (0.97 + 0.06 * scatter - 0.1 * outcome.labels[:, None])
    for label, (name, color, marker, area) in enumerate(_CLUSTERS):
        alpha = 0.25 if label == 0 else 0.8
        look = {"s": area, "color": color, "marker": marker, "alpha": alpha, "linewidths": 0}
        panel.scatter(*rings[outcome.labels == label].T, label=f"{name} ({COUNTS[label]:,})", **look)
    start, extent = head_arc(points, outcome.labels)
    along = torch.linspace(start, start + extent, 200).deg2rad()
    panel.plot(1.12 * along.cos(), 1.12 * along.sin(), color=_CLUSTERS[0][1], linewidth=4, solid_capstyle="round")
    panel.text(0, 0, f"{extent:.0f}°", color=_CLUSTERS[0][1], ha="center", va="center", fontsize=19)
    panel.set_xlim(-1.2, 1.2)
    panel.set_ylim(-1.2, 1.2)
    panel.set_aspect("equal")
    panel.axis("off")


def _png(figure: Figure, dpi: int = 130) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    return png.getvalue()
