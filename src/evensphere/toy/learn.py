"""Three clusters of very different sizes, a small network that puts them on a circle, and two numbers about it.

Contrastive learning spreads samples, so the largest cluster takes most of the circle; GH spreads regions (the paper's
first figure). InfoNCE and Harmonizer are those of the library; only the data and the network are made up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer
from evensphere.ops.contrast import info_nce
from evensphere.ops.draw import permutation, seed_for
from evensphere.ops.schedule import Progress

Arm = Literal["plain", "gh"]
ARMS: dict[Arm, str] = {"plain": "InfoNCE", "gh": "InfoNCE + GH"}

COUNTS = (1000, 100, 10)  # points of each cluster: the head, the middle, the tail
STEPS = 600
BATCH = 256
SPREAD = 0.25  # of a cluster, whose centre is at distance 1 from the origin
NOISE = 0.1  # what tells the two views of a point apart
TEMPERATURE = 0.2
HEAD_SHARE = 0.9  # of the head's points that its arc holds
_WIDTH, _RATE = 64, 0.01  # of the network's layers; of Adam
_SNAPSHOTS = 60


class Outcome(NamedTuple):
    """One network's circle at the end and on the way there.

    points: where the network puts the data, unit vectors. labels: their clusters, 0 the largest. anchors: GH's, also
    shown (never used) where it was not. snapshots: (step, points) over training, the last of them the end.
    """

    arm: Arm
    seed: int
    points: Float[Tensor, "n 2"]
    labels: Int64[Tensor, " n"]
    anchors: Float[Tensor, "k 2"]
    snapshots: tuple[tuple[int, Tensor], ...]

    @property
    def head_arc(self) -> float:
        """The shortest arc, in degrees, that holds `HEAD_SHARE` of the largest cluster."""
        return head_arc(self.points, self.labels)[1]

    @property
    def closest_centroids(self) -> float:
        """The smallest angle between the mean directions of two clusters, in degrees (0 to 120 for three)."""
        return closest_directions(self.points, self.labels)


def learn(arm: Arm, seed: int, steps: int = STEPS, after_step: Callable[[], None] | None = None) -> Outcome:
    """Train a small network with InfoNCE alone, or with InfoNCE and GH.

    steps: at least 10. The first fifth is GH's warm-up. after_step: called after every step, for progress bars.
    The same arguments give the same bits; both arms of a seed see the same points, views and first weights.
    """
    if steps < 10:
        raise InputError(f"steps = {steps} was given; the toy needs at least 10.")
    data, labels = clusters(seed)
    network = _network(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=_RATE)
    harmonizer = Harmonizer(
        dim=2,
        num_samples=len(data),
        anchors=len(COUNTS),
        warm_up=f"{steps // 5} steps",
        ramp=f"{max(1, steps // 15)} steps",
        update_every=f"{max(1, steps // 75)} steps",
        momentum=(0.9, 0.9),
    )
    generator = torch.Generator().manual_seed(seed_for(seed, "toy/views"))
    per_epoch = len(data) // BATCH
    snapshots = []
    for step in range(steps):
        order = permutation(seed, "toy/order", step // per_epoch, len(data))
        index = order[step % per_epoch * BATCH :][:BATCH]
        views = [data[index] + NOISE * torch.randn(BATCH, 2, generator=generator) for _ in range(2)]
        embeddings: list[Tensor] = [network(view) for view in views]
        progress = Progress(step, per_epoch, steps)
        loss = info_nce(embeddings[0], embeddings[1], TEMPERATURE).mean()
        if arm == "gh":
            loss = loss + harmonizer(embeddings, index, progress).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if arm == "gh":
            harmonizer.after_step(embeddings, index, progress)
        if (step + 1) % max(1, steps // _SNAPSHOTS) == 0 or step + 1 == steps:
            snapshots.append((step + 1, _on_circle(network, data)))
        if after_step is not None:
            after_step()
    return Outcome(arm, seed, snapshots[-1][1], labels, harmonizer.anchors, tuple(snapshots))


def clusters(seed: int) -> tuple[Float[Tensor, "n 2"], Int64[Tensor, " n"]]:
    """Points of three round clusters at equal distances from each other, and the number of each point's cluster."""
    angle = torch.arange(len(COUNTS)) * (2 * math.pi / len(COUNTS))
    labels = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    noise = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(seed_for(seed, "toy/points")))
    return torch.stack([angle.cos(), angle.sin()], dim=1)[labels] + SPREAD * noise, labels


def head_arc(points: Float[Tensor, "n 2"], labels: Int64[Tensor, " n"]) -> tuple[float, float]:
    """The shortest arc that holds `HEAD_SHARE` of the largest cluster (see `shortest_arc`)."""
    return shortest_arc(points[labels == 0], HEAD_SHARE)


def shortest_arc(points: Float[Tensor, "n 2"], share: float) -> tuple[float, float]:
    """Where the shortest arc begins that holds a share (above 0, up to 1) of unit vectors, and how far it reaches from
    there, counter-clockwise, in degrees."""
    angles = torch.atan2(points[:, 1], points[:, 0]).double().sort().values
    held = math.ceil(share * len(angles) - 1e-9)
    round_again = torch.cat([angles, angles + 2 * math.pi])
    extents = round_again[held - 1 : held - 1 + len(angles)] - angles
    first = int(extents.argmin())
    return math.degrees(float(angles[first])), math.degrees(float(extents[first]))


def closest_directions(points: Float[Tensor, "n 2"], labels: Int64[Tensor, " n"]) -> float:
    """The smallest angle between two clusters' mean directions, in degrees."""
    means = torch.stack([points[labels == label].double().mean(0) for label in labels.unique()])
    cosines = normalize(means, dim=1) @ normalize(means, dim=1).T
    return math.degrees(math.acos(max(-1.0, min(1.0, float(cosines.fill_diagonal_(-1).max())))))


def _network(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(seed, "toy/network"))
        hidden = [nn.Linear(2, _WIDTH), nn.ReLU(), nn.Linear(_WIDTH, _WIDTH), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(_WIDTH, 2))


@torch.no_grad()
def _on_circle(network: nn.Module, data: Tensor) -> Float[Tensor, "n 2"]:
    return normalize(network(data), dim=1)
