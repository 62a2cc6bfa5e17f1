"""Draws docs/how-gh-works.png from the package's own functions: `python docs/pictures.py` in a checkout."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.harmonizer import anchor_scores
from evensphere.ops.schedule import Duration, Progress, plain_learning_rate, ramp_weight, two_stage_learning_rate
from evensphere.ops.sinkhorn import transport_plan

OUT = Path(__file__).parent / "how-gh-works.png"
COLOURS = ("#0072B2", "#E69F00", "#D55E00")  # Okabe & Ito's
COUNTS = (40, 16, 8)  # points of a batch that lie towards each anchor
SHARES = (0.5, 0.3, 0.2)  # pi


def draw(out: Path) -> None:
    figure = Figure(figsize=(12, 4))
    figure.set_layout_engine("constrained", w_pad=0.12)
    circle, labels, schedule = figure.subplots(1, 3)
    anchors = geometric_uniform(3, 2)
    points = batch_around(anchors)
    _circle(circle, anchors, points)
    _labels(labels, anchor_scores((points,), anchors)[0])
    _schedule(schedule)
    figure.savefig(out, dpi=110, metadata={"Software": None})


def batch_around(anchors: torch.Tensor) -> torch.Tensor:
    """Unit vectors [B, 2], most of them near the first anchor."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.atan2(anchors[:, 1], anchors[:, 0]).repeat_interleave(torch.tensor(COUNTS))
    angles = centres + 0.45 * torch.randn(len(centres), generator=generator)
    return torch.stack([angles.cos(), angles.sin()], 1)


def _circle(panel: Any, anchors: torch.Tensor, points: torch.Tensor) -> None:
    turn = torch.linspace(0, 2 * math.pi, 200)
    panel.plot(turn.cos(), turn.sin(), color="0.8", zorder=0)
    nearest = (points @ anchors.T).argmax(1)
    for k, colour in enumerate(COLOURS):
        mine = points[nearest == k]
        panel.scatter(mine[:, 0], mine[:, 1], s=18, color=colour, alpha=0.7)
        panel.annotate("", anchors[k].tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2})
    panel.set(title="3 anchors, a batch of 64", aspect="equal", xticks=[], yticks=[])
    panel.set_frame_on(False)


def _labels(panel: Any, scores: torch.Tensor) -> None:
    """The batch's mean label: nearest anchor, softmax, and what Sinkhorn makes of it."""
    pi = torch.tensor(SHARES)
    nearest = torch.bincount(scores.argmax(1), minlength=3) / len(scores)
    rows = {
        "nearest": nearest,
        "softmax": (scores / 0.05).softmax(1).mean(0),
        "calibrated": transport_plan(scores, pi).assignment.mean(0),
        "pi": pi,
    }
    for place, shares in enumerate(rows.values()):
        left = 0.0
        for share, colour in zip(shares.tolist(), COLOURS, strict=True):
            panel.barh(place, share, left=left, color=colour)
            panel.text(left + share / 2, place, f"{share:.2f}", ha="center", va="center", color="white")
            left += share
    panel.set(title="the batch's labels on average", yticks=range(len(rows)), yticklabels=rows, xticks=[])
    panel.invert_yaxis()
    panel.set_frame_on(False)


def _schedule(panel: Any) -> None:
    epochs = range(100)
    warm_up, ramp = Duration.parse(0.5), Duration.parse("10 epochs")
    weights = [ramp_weight(Progress(epoch, 1, 100), warm_up, ramp) for epoch in epochs]
    panel.plot(epochs, weights, color="#D55E00", drawstyle="steps-post", label="GH's weight")
    rates = {
        "learning rate, gh and two-stage": ([two_stage_learning_rate(e, 100, 50) for e in epochs], "-"),
        "learning rate, base": ([plain_learning_rate(e, 100) for e in epochs], "--"),
    }
    for label, (values, line) in rates.items():
        panel.plot(epochs, values, line, color="#0072B2", label=label)
    panel.set(title="over a run of 100 epochs", xlabel="epoch", ylim=(0, 1.45))
    panel.legend(loc="upper left", frameon=False, fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
