"""Population statistics pi: how much of the data sits in each anchor's region (paper, section 3.3).

Two ways to know it. `ExactPopulation` remembers every image's score and counts where each image stands now; it needs an
index for each image and N x K numbers. `StreamingPopulation` averages the counts of the batches it sees; it needs K
numbers and no index, forgets old batches, and is another algorithm with a momentum of its own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evensphere.errors import InputError
from evensphere.nn.memory import IndexedEma


class ExactPopulation:
    """The histogram of where every image seen so far stands, from a moving average of its scores.

    momentum: of the average, per visit of an image, before and after the warm-up's end (the paper: 0.9, then 0.999).
    floor: added to every region's count (the authors' large-scale script: 100).
    dtype: of the memory; bfloat16 halves it.
    """

    def __init__(
        self,
        num_samples: int,
        num_anchors: int,
        momentum: tuple[float, float] = (0.9, 0.999),
        floor: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.momentum, self.floor = momentum, floor
        self.memory = IndexedEma(num_samples, num_anchors, dtype)

    def update(self, index: Int64[Tensor, " batch"] | None, scores: Float[Tensor, "batch k"], warming_up: bool) -> None:
        """Take in the scores of the images at `index`. Raises InputError where there is no index or it is too large."""
        if index is None:
            raise InputError(
                "Exact population statistics need each image's index; pass it or use population='streaming'."
            )
        if not index.is_cuda and len(index) and int(index.max()) >= len(self.memory.seen):  # a GPU checks by itself
            raise InputError(
                f"Image index {int(index.max())} was given to a harmonizer of num_samples={len(self.memory.seen)}; "
                "pass the number of images in the data set."
            )
        self.memory.update(index, scores, self.momentum[0] if warming_up else self.momentum[1])

    def estimate(self) -> Float[Tensor, " k"]:
        """pi: the share of the images seen that stand in each region; equal shares before any was seen."""
        nearest = self.memory.values[self.memory.seen].argmax(1)
        counts = torch.bincount(nearest, minlength=self.memory.values.shape[1]).float() + self.floor
        return _shares(counts)

    def state_dict(self) -> dict[str, Tensor]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.memory.load_state_dict(state)


class StreamingPopulation:
    """A moving average of the share of each batch that stands in each region.

    momentum: per step, so that the last 1/(1 - momentum) batches count: choose it so that these cover the data well
        (0.99 and batches of 512: about 51,000 images).
    """

    def __init__(self, num_anchors: int, momentum: float = 0.99, floor: float = 0.0) -> None:
        self.momentum, self.floor = momentum, floor
        self.average = torch.zeros(num_anchors)
        self.mass = torch.zeros(())  # weight of the batches in the average: 1 - momentum^steps

    @torch.no_grad()
    def update(self, index: Tensor | None, scores: Float[Tensor, "batch k"], warming_up: bool) -> None:
        counts = torch.bincount(scores.argmax(1), minlength=len(self.average)).float()
        self.average = torch.lerp(counts / len(scores), self.average.to(counts), self.momentum)
        self.mass = torch.lerp(torch.ones_like(counts[0]), self.mass.to(counts), self.momentum)

    def estimate(self) -> Float[Tensor, " k"]:
        """pi; `floor` is added in shares of one average region. Equal shares before any batch was seen."""
        shares = self.average / self.mass.clamp(min=torch.finfo(torch.float32).tiny)
        return _shares(shares + self.floor / len(shares))

    def state_dict(self) -> dict[str, Tensor]:
        return {"average": self.average, "mass": self.mass}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average, self.mass = state["average"], state["mass"]


Population = ExactPopulation | StreamingPopulation


def _shares(counts: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    total = counts.sum()
    return counts / total if total > 0 else torch.full_like(counts, 1 / len(counts))
