"""Shares of a batch of different sizes, and BatchNorm over them: three processes get what one gets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distributed.in_processes import in_processes
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.nn.norm import share_batch_norms
from evensphere.ops.contrast import batch_info_nce, info_nce
from evensphere.ops.sinkhorn import shared_plan

SIZES = [3, 4, 1]
RATES: tuple[float, float, None] = (0.1, 0.2, None)  # of the running statistics; None is their plain average

# what each process does with its share of the rows
SCRIPT = """
import copy
from timm.layers.norm_act import BatchNormAct2d
from torch import nn
from evensphere.nn.norm import share_batch_norms
from evensphere.ops import collective
from evensphere.ops.contrast import batch_info_nce, info_nce
from evensphere.ops.sinkhorn import shared_plan

z1, z2, images = (given[name].split(given["sizes"])[rank].clone().requires_grad_() for name in ("z1", "z2", "images"))
result = {}
with collective.shares(len(z1)) as result["images"]:
    result["gathered"] = collective.gather(z1).detach()
    result["plan"] = shared_plan(torch.stack([z1, z2])).assignment
    for name, loss in (("info_nce", info_nce), ("batch_info_nce", batch_info_nce)):
        value = collective.mean(loss(z1, z2))
        result[name] = value.detach(), torch.autograd.grad(value, (z1, z2))
    first, second, third = given["rates"]
    norms = nn.Sequential(
        nn.BatchNorm2d(3, momentum=first), BatchNormAct2d(3, momentum=second),
        nn.BatchNorm2d(3, affine=False, momentum=third),
    ).double()
    share_batch_norms(norms)
    for _ in range(2):
        norms.zero_grad()
        loss = collective.mean((norms(images) ** 3 * given["weights"]).flatten(1).sum(1))
        images.grad = None
        loss.backward()
    result["norms"] = loss.detach(), images.grad, [parameter.grad for parameter in norms.parameters()]
    result["statistics"] = list(norms.buffers())
    result["evaluated"] = norms.eval()(images).detach()
    half = copy.deepcopy(norms).float().train()
    result["half"] = half(images.to(torch.bfloat16)).dtype
result["merged"] = collective.merged({str(rank): "x"})
with collective.alone():
    result["alone"] = collective.world_size()
"""

Parts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"z1": (8, 5), "z2": (8, 5), "images": (8, 3, 4, 2), "weights": (3, 4, 2)}
    made: dict[str, Any] = {
        name: torch.randn(shape, dtype=torch.float64, generator=generator) for name, shape in shapes.items()
    }
    made["images"] += 1e3  # where sums of squares would lose six digits
    return made | {"sizes": SIZES, "rates": RATES}


@pytest.fixture(scope="module")
def parts(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Parts:
    parts: Parts = in_processes(3, SCRIPT, given, tmp_path_factory.mktemp("shares"))
    return parts


def test_shares_of_different_sizes_make_one_batch(given: dict[str, Any], parts: Parts) -> None:
    z1, z2 = given["z1"].clone().requires_grad_(), given["z2"].clone().requires_grad_()
    for part in parts:
        assert (part["images"], part["alone"], part["merged"]) == (8, 1, {"0": "x", "1": "x", "2": "x"})
        assert torch.equal(part["gathered"], z1)
    plan = shared_plan(torch.stack([z1, z2])).assignment
    assert torch.allclose(torch.cat([part["plan"] for part in parts], dim=1), plan, atol=1e-12)
    for name, loss in (("info_nce", info_nce), ("batch_info_nce", batch_info_nce)):
        value = loss(z1, z2).mean()
        assert all(torch.allclose(part[name][0], value, atol=1e-12) for part in parts)
        for view, expected in enumerate(torch.autograd.grad(value, (z1, z2))):
            assert torch.allclose(averaged([part[name][1][view] for part in parts]), expected, atol=1e-12)


def test_batch_norm_of_all_is_that_of_one(given: dict[str, Any], parts: Parts) -> None:
    first, second, third = RATES
    norms = nn.Sequential(
        nn.BatchNorm2d(3, momentum=first),
        BatchNormAct2d(3, momentum=second),
        nn.BatchNorm2d(3, affine=False, momentum=third),
    ).double()
    images = given["images"].clone().requires_grad_()
    for _ in range(2):
        norms.zero_grad()
        images.grad = None
        loss = (norms(images) ** 3 * given["weights"]).flatten(1).sum(1).mean()
        loss.backward()
    assert images.grad is not None
    assert all(torch.allclose(part["norms"][0], loss, atol=1e-9) for part in parts)
    assert torch.allclose(averaged([part["norms"][1] for part in parts]), images.grad, atol=1e-9)
    for number, parameter in enumerate(norms.parameters()):
        assert parameter.grad is not None
        mean = torch.stack([part["norms"][2][number] for part in parts]).mean(0)
        assert torch.allclose(mean, parameter.grad, atol=1e-9)
    for part in parts:
        for mine, expected in zip(part["statistics"], norms.buffers(), strict=True):
            assert torch.allclose(mine, expected, atol=1e-9)
    assert torch.allclose(torch.cat([part["evaluated"] for part in parts]), norms.eval()(images), atol=1e-9)
    assert all(part["half"] == torch.bfloat16 for part in parts)


def test_alone_batch_norm_is_torchs() -> None:
    norm, shared = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    share_batch_norms(shared)
    x = torch.randn(6, 4)
    assert torch.equal(norm(x), shared(x))
    for mine, theirs in zip(norm.buffers(), shared.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    assert list(norm.state_dict()) == list(shared.state_dict())


def test_an_unknown_batch_norm_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    with pytest.raises(InputError, match="1 is a Own, which several processes cannot share"):
        share_batch_norms(nn.Sequential(nn.ReLU(), Own(3)))


def averaged(shares: list[Tensor]) -> Tensor:
    """The gradient of all rows, once data parallelism has taken its average."""
    return torch.cat(shares) / len(shares)
