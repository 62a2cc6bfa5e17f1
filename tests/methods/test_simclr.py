"""SimCLR: two BatchNorm batches, one loss, no side effects but BatchNorm's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.simclr import SimCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.contrast import info_nce
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 1)


def make(**options: object) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(resnet_small(1, width=4, stages=2), embedding_dim=8, **options)  # type: ignore[arg-type]


def two_views() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 1, 8, 8, generator=generator), 3 + 2 * torch.randn(6, 1, 8, 8, generator=generator)


def test_the_loss_is_nt_xent_of_separately_encoded_views() -> None:
    method, views = make(temperature=0.3), two_views()
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)) for view in views)
    assert torch.allclose(output.loss, info_nce(z1, z2, 0.3).mean())
    assert torch.allclose(output.per_sample, info_nce(z1, z2, 0.3))
    assert [z.shape for z in output.embeddings] == [(6, 8), (6, 8)]
    assert output.embeddings[0].requires_grad


def test_joint_batching_is_another_method() -> None:
    separate, joint = make()(two_views(), None, PROGRESS), make(batching="joint")(two_views(), None, PROGRESS)
    assert not torch.allclose(separate.loss, joint.loss)


def test_every_parameter_gets_a_gradient() -> None:
    method = make()
    method(two_views(), None, PROGRESS).loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": -1.0}])
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
