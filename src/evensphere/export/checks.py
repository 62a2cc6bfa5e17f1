"""An export is done when what was written gives the encoder's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from evensphere.errors import InputError
from evensphere.export.subject import Subject

TOLERANCE = 1e-5  # of features; in proportion to the largest, where that is above 1

# From images to features, by what was written
Reloaded = Callable[[Float[Tensor, "n c size size"]], Float[Tensor, "n d"]]


@dataclass(frozen=True)
class Exported:
    """files: that were written. by: what read them again. apart: how far its outputs are from the encoder's, at most.
    images: that they were compared on, in words. code: Python that uses what was written."""

    files: list[Path]
    by: str
    apart: float
    images: str
    code: str

    def __str__(self) -> str:
        return f"Read again by {self.by} and compared on {self.images}: outputs are {self.apart:.1e} apart."


@torch.no_grad()
def check_outputs(
    subject: Subject, reloaded: Reloaded, by: str, tolerance: float = TOLERANCE, batches: bool = False
) -> float:
    """How far apart the outputs are at most. batches: whether other sizes of the batch are tried too. Raises
    BadExport."""
    apart, allowed = 0.0, tolerance * max(1.0, float(subject.features.abs().max()))
    for count in (len(subject.pixels), 1, 3) if batches else (len(subject.pixels),):
        given, wanted = reloaded(subject.pixels[:count]), subject.features[:count]
        if given.shape != wanted.shape:
            raise BadExport(f"{by} gives outputs of the shape {list(given.shape)}, not {list(wanted.shape)}")
        difference = float((given - wanted).abs().max())
        if not difference <= allowed:  # of numbers that are none, too
            raise BadExport(
                f"{by} gives outputs that are {difference:.1e} from the encoder's, and {allowed:.1e} is allowed"
            )
        apart = max(apart, difference)
    return apart


class BadExport(InputError):
    """What was written is not the encoder."""
