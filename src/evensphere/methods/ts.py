"""TS (Kukleva et al., ICLR 2023): SimCLR whose temperature goes up and down, a baseline of the GH paper.

    loss = mean over images of NT-Xent(z1, z2; tau),   tau = low + (high - low)/2 (1 + cos(2 pi e / period))

e is the epoch, from 0. A high temperature tells groups of images apart, a low one single images; the rare classes of
long-tailed data want the groups, and the common ones both in turn. With the paper's numbers
tau = 0.1 + 0.45 (1 + cos(pi e / 200)). Any other InfoNCE method follows the same schedule with
`temperature="1.0 to 0.1 every 400 epochs"`.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from evensphere.methods.simclr import SimCLR
from evensphere.ops.schedule import Duration, Temperature


class TS(SimCLR):
    """SimCLR with a temperature schedule.

    high, low: the temperature at the start and half a period later, > 0 (the paper: 1.0 and 0.1).
    period: until it is high again (the paper: 400 of 2000 epochs); a shorter run wants a shorter one, such as 0.2.
    The other options are SimCLR's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        high: float = 1.0,
        low: float = 0.1,
        period: Duration | str | float = "400 epochs",
        batching: Literal["separate", "joint"] = "separate",
    ) -> None:
        super().__init__(encoder, embedding_dim, Temperature(high, low, Duration.parse(period)), batching)
