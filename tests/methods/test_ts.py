"""TS: SimCLR's loss at the temperature of the epoch."""

from __future__ import annotations

import math

import pytest
import torch

from evensphere.errors import InputError
from evensphere.methods.focal import Focal
from evensphere.methods.ts import TS
from evensphere.nn.backbone import resnet_small
from evensphere.ops.contrast import focal_info_nce, info_nce
from evensphere.ops.schedule import Progress

VIEWS = tuple(torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet_small(1, width=4, stages=2)


@pytest.mark.parametrize("epoch", [0, 37, 200, 313, 400, 1999])
def test_the_loss_is_simclrs_at_the_papers_temperature(epoch: int) -> None:
    method = TS(encoder(), 8)
    z1, z2 = method.embed(VIEWS)
    tau = 0.1 + 0.45 * (1 + math.cos(math.pi * epoch / 200))  # PAPER.md, section 4
    for step in (3 * epoch, 3 * epoch + 2):  # the same from an epoch's first step to its last
        output = method(VIEWS, None, Progress(step, 3, 6000))
        assert torch.allclose(output.per_sample, info_nce(z1, z2, tau))


def test_other_infonce_methods_take_the_schedule() -> None:
    method = Focal(encoder(), 8, temperature="1.0 to 0.1 every 400 epochs")
    z1, z2 = method.embed(VIEWS)
    output = method(VIEWS, None, Progress(100, 1, 400))
    assert torch.allclose(output.per_sample, focal_info_nce(z1, z2, 0.55))


@pytest.mark.parametrize("options", [{"low": 0.0}, {"high": -1.0}, {"period": 0.0}, {"period": "often"}])
def test_mistakes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        TS(encoder(), **options)  # type: ignore[arg-type]
