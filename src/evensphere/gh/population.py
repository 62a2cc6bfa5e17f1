"""Population statistics pi: how much of the data sits in each anchor's region (paper, section 3.3).

Two ways to know it. `ExactPopulation` remembers every image's score and counts where each image stands now; it needs an
index for each image and N x K numbers. `StreamingPopulation` averages the counts of the batches it sees; it needs K
numbers and no index, forgets old batches, and is another algorithm with a momentum of its own.

Both can count some images for less than one: a burst of m near-duplicates at weight 1/m each counts as one image. The
weights are facts about the data, not something learnt: they are given anew with each construction and are no state.
Nothing here makes a host wait for a GPU.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evensphere.errors import InputError
from evensphere.nn.memory import IndexedEma

MOMENTUM = (0.9, 0.999)  # the paper's: per visit of an image, before and after the warm-up
STREAMING_MOMENTUM = 0.99  # per step


class ExactPopulation:
    """The histogram of where every image seen so far stands, from a moving average of its scores.

    A step costs O(B K), whatever N, and an estimate O(N), not O(N K): an image's region is looked up again only when
    its average has moved.

    momentum: of the average, per visit of an image, before and after the warm-up's end (the paper: 0.9, then 0.999).
    floor: added to every region's count (the authors' large-scale script: 100).
    dtype: of the memory; bfloat16 halves it.
    sample_weights: [N], >= 0, what each image counts; None counts 1 for each.
    """

    def __init__(
        self,
        num_samples: int,
        num_anchors: int,
        momentum: tuple[float, float] = (0.9, 0.999),
        floor: float = 0.0,
        dtype: torch.dtype = torch.float32,
        sample_weights: Float[Tensor, " n"] | None = None,
    ) -> None:
        self.momentum, self.floor = momentum, floor
        self.memory = IndexedEma(num_samples, num_anchors, dtype)
        self.places = torch.zeros(num_samples, dtype=torch.int64)  # 1 + the region of each image, 0 for one not seen
        self.sample_weights = torch.ones(()).expand(num_samples) if sample_weights is None else sample_weights

    def update(self, index: Int64[Tensor, " batch"] | None, scores: Float[Tensor, "batch k"], warming_up: bool) -> None:
        """Take in the scores of the images at `index`. Raises InputError where there is no index or it is too large."""
        if index is None:
            raise InputError(
                "Exact population statistics need each image's index; pass it or use population='streaming'."
            )
        _check_index(index, len(self.places))
        averages = self.memory.update(index, scores, self.momentum[0] if warming_up else self.momentum[1])
        self.places = self.places.to(averages.device)
        self.places[index] = averages.argmax(1) + 1

    def estimate(self) -> Float[Tensor, " k"]:
        """pi: the share of the images seen that stand in each region; equal shares before any was seen."""
        self.sample_weights = self.sample_weights.to(self.places.device)
        counts = _histogram(self.places, self.sample_weights, 1 + self.memory.values.shape[1])[1:]
        return _shares(counts + self.floor)

    def state_dict(self) -> dict[str, Tensor]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.memory.load_state_dict(state)
        self.places = torch.where(self.memory.seen, self.memory.values.argmax(1) + 1, 0)


class StreamingPopulation:
    """A moving average of the share of each batch that stands in each region.

    momentum: per step, so that the last 1/(1 - momentum) batches count: choose it so that these cover the data well
        (0.99 and batches of 512: about 51,000 images).
    floor: added to every region's share, in shares of an average region.
    sample_weights: [N], >= 0, what each image counts in a batch that comes with its index; without one all count 1.
    """

    def __init__(
        self,
        num_anchors: int,
        momentum: float = STREAMING_MOMENTUM,
        floor: float = 0.0,
        sample_weights: Float[Tensor, " n"] | None = None,
    ) -> None:
        self.momentum, self.floor = momentum, floor
        self.sample_weights = sample_weights
        self.average = torch.zeros(num_anchors)  # of the counts of an image
        self.mass = torch.zeros(())  # of its weight, so 1 - momentum^steps where all count 1

    @torch.no_grad()
    def update(self, index: Int64[Tensor, " batch"] | None, scores: Float[Tensor, "batch k"], warming_up: bool) -> None:
        """Take in the scores of a batch. Raises InputError for an index beyond the weights."""
        weights = self._weights_of(index, scores)
        counts = _histogram(scores.argmax(1), weights, len(self.average))
        self.average = torch.lerp(counts / len(scores), self.average.to(counts), self.momentum)
        self.mass = torch.lerp(weights.mean(), self.mass.to(counts), self.momentum)

    def _weights_of(self, index: Tensor | None, scores: Tensor) -> Float[Tensor, " batch"]:
        if index is None or self.sample_weights is None:
            return torch.ones(len(scores), device=scores.device)
        _check_index(index, len(self.sample_weights))
        self.sample_weights = self.sample_weights.to(scores.device)
        return self.sample_weights[index]

    def estimate(self) -> Float[Tensor, " k"]:
        """pi. Equal shares before any batch was seen."""
        shares = self.average / self.mass.clamp(min=torch.finfo(torch.float32).tiny)
        return _shares(shares + self.floor / len(shares))

    def state_dict(self) -> dict[str, Tensor]:
        return {"average": self.average, "mass": self.mass}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average, self.mass = state["average"], state["mass"]


Population = ExactPopulation | StreamingPopulation


def _check_index(index: Tensor, num_samples: int) -> None:
    """A GPU checks by itself, and asking it would make the host wait."""
    if not index.is_cuda and len(index) and int(index.max()) >= num_samples:
        raise InputError(
            f"Image index {int(index.max())} was given to a harmonizer of num_samples={num_samples}; "
            "pass the number of images in the data set."
        )


def _histogram(
    regions: Int64[Tensor, " n"], weights: Float[Tensor, " n"], num_regions: int
) -> Float[Tensor, " {num_regions}"]:
    """The weight in each region, float32, summed in float64 where the device has it."""
    precise = torch.float32 if regions.device.type == "mps" else torch.float64
    counts = torch.zeros(num_regions, dtype=precise, device=regions.device)
    return counts.scatter_add_(0, regions, weights.to(precise)).float()


def _shares(counts: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    total = counts.sum()
    return torch.where(total > 0, counts / total, 1 / len(counts))
