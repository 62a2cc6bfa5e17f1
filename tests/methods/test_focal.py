"""Focal: the focal loss of SimCLR's embeddings, and SimCLR where gamma is 0."""

from __future__ import annotations

import pytest
import torch

from evensphere.errors import InputError
from evensphere.methods.focal import Focal
from evensphere.methods.simclr import SimCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.contrast import focal_info_nce
from evensphere.ops.schedule import Progress

VIEWS = tuple(torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0)))


def encoder() -> torch.nn.Module:
    torch.manual_seed(0)
    return resnet_small(1, width=4, stages=2)


def test_the_loss_is_the_focal_one() -> None:
    method = Focal(encoder(), 8, temperature=0.3, gamma=1.5)
    output = method(VIEWS, None, Progress(0, 1, 1))
    z1, z2 = method.embed(VIEWS)
    assert torch.allclose(output.per_sample, focal_info_nce(z1, z2, temperature=0.3, gamma=1.5))
    assert torch.allclose(output.loss, output.per_sample.mean())


def test_without_the_weight_it_is_simclr() -> None:
    losses = [
        method(VIEWS, None, Progress(0, 1, 1)).loss for method in (Focal(encoder(), gamma=0.0), SimCLR(encoder()))
    ]
    assert torch.allclose(losses[0], losses[1])


@pytest.mark.parametrize("options", [{"gamma": -1.0}, {"temperature": 0.0}])
def test_mistakes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Focal(encoder(), **options)  # type: ignore[arg-type]
