"""BCL (Zhou et al., "Contrastive Learning with Boosted Memorization", ICML 2022), as the GH paper's authors run it.

    loss = mean over images of l_i,   l_i = NT-Xent of image i's two views
    m_i <- 0.97 m_i + 0.03 l_i at each visit, l_i itself at the first
    w_i = (m_i - mean m) / (2 max |m - mean m|) + 1/2 in [0, 1], at the end of every epoch

A network memorises the head before the tail, so an image whose loss stays high is probably a rare one. Its views are
made harder: each view of image i meets RandAugment (data/randaugment.py) with probability w_i and the magnitude
10 + 20 w_i of 30, after jitter and grey. In the first epoch w is 0.

The views do that when they are told w; on the large sets they apply two operations of magnitude 30 w U(0, 1), which is
what the views 'photos' are set to. BCL's crop is bicubic where SimCLR's is bilinear on CIFAR:
`--set views.interpolation=bicubic`.

Here m begins at an image's first loss and images that were never visited (unreadable ones) count in neither mean nor
maximum; the reference code begins with uninitialised storage. Lightly has no BCL to compare with; its NT-Xent is
compared in SimCLR's tests.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.methods.base import Output
from evensphere.methods.simclr import SimCLR
from evensphere.nn.memory import IndexedEma
from evensphere.ops import collective
from evensphere.ops.schedule import Progress, Temperature


class BCL(SimCLR):
    """SimCLR that asks for stronger views of images whose loss stays high.

    num_samples: images in the data set. momentum: of each image's loss, per visit, in [0, 1) (the paper: 0.97). The
        other options are SimCLR's.

    losses: the memory m, one number per image. weights: w [num_samples], fixed throughout an epoch. Both are state, but
        no buffers: data parallelism would send them at every step.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"index"})

    losses: IndexedEma
    weights: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        num_samples: int,
        embedding_dim: int = 128,
        temperature: Temperature | str | float = 0.2,
        momentum: float = 0.97,
        batching: Literal["separate", "joint"] = "separate",
    ) -> None:
        super().__init__(encoder, embedding_dim, temperature, batching)
        if not 0 <= momentum < 1:
            raise InputError(f"momentum = {momentum} was given; it must be in [0, 1) (the paper: 0.97).")
        self.momentum = momentum
        self.losses = IndexedEma(num_samples, 1)
        self.weights = torch.zeros(num_samples)

    def view_strength(self, index: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """w of the images, on the CPU, where the views' random numbers are drawn."""
        return self.weights[index.cpu()]

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        if index is None:
            raise InputError("BCL remembers a loss for each image; pass each image's index.")
        assert output.per_sample is not None
        losses = output.per_sample.detach()
        index, losses = collective.gather(index.to(losses.device)), collective.gather(losses)
        self.losses.update(index, losses[:, None], self.momentum)
        if progress.ends_epoch:
            seen = self.losses.seen
            self.weights = torch.zeros(len(seen))
            self.weights[seen.cpu()] = momentum_weight(self.losses.values[seen, 0]).cpu()

    def get_extra_state(self) -> dict[str, Any]:
        return {"losses": self.losses.state_dict(), "weights": self.weights}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.losses.load_state_dict(state["losses"])
        self.weights = state["weights"].cpu()


def momentum_weight(loss_ema: Float[Tensor, "*images"]) -> Float[Tensor, "*images"]:
    """Each image's weight in [0, 1]: how far its loss lies above or below the mean, 1/2 at the mean.

    loss_ema: moving averages of the images' losses. The paper standardises them first, which cancels. 1/2 for all where
    they are all the same.
    """
    deviation = loss_ema - loss_ema.mean()
    return deviation / (2 * deviation.abs().max()).clamp(min=torch.finfo(loss_ema.dtype).tiny) + 0.5
