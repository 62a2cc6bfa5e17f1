"""How much of the space the embeddings use, at every checkpoint looked at: the collapses that training can end in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evensphere.diagnosis.finding import Chart, Finding, Question
from evensphere.diagnosis.look import Look
from evensphere.metrics.signals import effective_rank, rank_me, spread

# Healthy runs on CIFAR-100-LT: spread 0.98 to 1.00, effective rank 11 to 22 of 128 (docs/log.md); an alarm is far off.
_ONE_POINT = 0.3  # spread
_FEW_DIRECTIONS = 3.0
_LOST = 0.5  # of the dimensions that there were


class Room(NamedTuple):
    """What the embeddings of a checkpoint use (the features, where nothing is behind them).

    spread: from 0 (one point) to 1. dimensions: effective rank. rank_me: of the features. width: of the embeddings.
    """

    epoch: float
    spread: float
    dimensions: float
    rank_me: float
    width: int
    embedded: bool


def room(look: Look, epoch: float) -> Room:
    """Of at least two images with finite features."""
    points = look.features if look.embeddings is None else look.embeddings[:, 0]
    embedded = look.embeddings is not None
    return Room(epoch, spread(points), effective_rank(points), rank_me(look.features), points.shape[1], embedded)


def collapse(rooms: Sequence[Room], trained: bool = True) -> Finding:
    """Whether everything is one point, or lies along few directions, at the end or more and more.

    rooms: by epoch. trained: whether the run was long enough for few directions to be a loss and not a beginning.
    """
    last, widest = rooms[-1], max(rooms, key=lambda one: one.dimensions)
    numbers = {"checkpoints": [one._asdict() for one in rooms]}
    where = "embeddings" if last.embedded else "features"
    evidence = (
        "Healthy runs of this project on CIFAR-100-LT had a spread of 0.98 to 1.00 and 11 to 22 dimensions of 128 "
        "at all of their checkpoints. Spread: 1 fills the sphere, 0 is one point. Dimensions: the effective rank "
        "of the covariance."
    )
    asked = Question("collapse", "Has the network collapsed?", numbers, evidence, _directions(rooms, where))
    if last.dimensions == 0 or (last.embedded and last.spread < _ONE_POINT):
        return asked.answer(
            "alarm",
            f"The {where} of all images lie in nearly one point (spread {last.spread:.2f}): the network tells nothing "
            "apart.",
            "Do not use this encoder. Train again with a lower learning rate; with a method without negatives (byol, "
            "simsiam) check its momentum and predictor, with others raise the batch size.",
        )
    if last.dimensions < min(_FEW_DIRECTIONS, last.width / 4):
        used = f"The {where} use {last.dimensions:.1f} of {last.width} dimensions"
        if not trained:
            return asked.answer(
                "warning",
                f"{used}, as those of a network do that has hardly begun.",
                "Train longer, then look again; if it stays so, lower the learning rate.",
            )
        return asked.answer(
            "alarm",
            f"{used}: most differences between images are lost.",
            "Do not use this encoder. Lower the learning rate or the method's temperature, or try barlow or vicreg, "
            "which keep dimensions apart.",
        )
    if last.dimensions < _LOST * widest.dimensions:
        return asked.answer(
            "warning",
            f"The {where} use {last.dimensions:.1f} dimensions now and used {widest.dimensions:.1f} at epoch "
            f"{widest.epoch:g}: the network is giving up differences.",
            f"Compare with the checkpoint of epoch {widest.epoch:g}; a lower learning rate or --set "
            "harmonizer.weight=0.3 keep more.",
        )
    spread_words = f"spread {last.spread:.2f}, " if last.embedded else ""
    return asked.answer("ok", f"No sign of it: {spread_words}{last.dimensions:.0f} of {last.width} dimensions used.")


def _directions(rooms: Sequence[Room], where: str) -> Chart | None:
    """How many there are over the epochs; nothing to see at a single checkpoint."""
    if len(rooms) < 2:
        return None
    epochs = [one.epoch for one in rooms]
    series = {
        "dimensions used": [one.dimensions for one in rooms],
        "RankMe of the features": [one.rank_me for one in rooms],
    }
    return Chart("lines", f"Directions that the {where} use.", epochs, "epoch", "dimensions", series)
