"""TS: SimCLR's loss at the temperature of the epoch."""

from __future__ import annotations

import math

import pytest
import torch

from evensphere.errors import InputError
from evensphere.methods.base import Method
from evensphere.methods.focal import Focal
from evensphere.methods.ts import TS
from evensphere.nn.backbone import resnet_small
from evensphere.ops.contrast import focal_info_nce, info_nce
from evensphere.ops.schedule import Progress, Temperature
from evensphere.recipes.part import Part, build

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


@pytest.mark.parametrize("name", ["simclr", "focal", "sdclr", "bcl", "moco", "moco-v3", "nnclr"])
def test_every_contrastive_method_takes_a_temperature_that_changes(name: str) -> None:
    """At each time its loss is that of the temperature then."""

    def loss(temperature: str | float, epoch: int) -> float:
        torch.manual_seed(0)
        part = Part(name, embedding_dim=8, temperature=temperature)
        method: Method = build("method", part, encoder=resnet_small(1, width=4, stages=2), num_samples=6)
        views = tuple(torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
        value: float = method(views, torch.arange(6), Progress(epoch, 1)).loss.item()
        return value

    schedule = "1.0 to 0.1 every 400 epochs"
    now = [Temperature.parse(schedule)(Progress(epoch, 1)) for epoch in (0, 100, 200)]
    assert now == pytest.approx([1.0, 0.55, 0.1])
    for epoch, temperature in zip((0, 100, 200), now, strict=True):
        assert loss(schedule, epoch) == pytest.approx(loss(temperature, epoch), rel=1e-6)
    assert loss(schedule, 0) != pytest.approx(loss(schedule, 200), rel=1e-2)
