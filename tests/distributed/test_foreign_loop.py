"""Three lines in somebody else's DDP loop: two processes with half of each batch learn what one learns with all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.in_processes import in_processes

# what each process does; alone it has all rows of a batch
SCRIPT = """
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler
from evensphere import Harmonizer, WithIndex

dataset = WithIndex(TensorDataset(given["images"]))
sampler = DistributedSampler(dataset, world, rank, shuffle=False)
loader = DataLoader(dataset, batch_size=8 // world, sampler=sampler)
torch.manual_seed(0)
model = nn.Linear(5, 6).double()
model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
harmonizer = Harmonizer(6, len(dataset), anchors=4, warm_up="1 epoch", ramp=0, update_every="1 epoch", total_steps=9)
losses = []
for _ in range(3):
    for images, index in loader:
        z1, z2 = model(torch.cat([images, images + given["noise"][index]])).chunk(2)
        loss = (z1 - z2).square().mean()
        loss = loss + harmonizer((z1, z2), index).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
weights = [parameter.detach() for parameter in model.parameters()]
result = {"weights": weights, "prior": harmonizer.prior, "steps": harmonizer.steps_per_epoch, "losses": losses}
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    given = {
        "images": torch.randn(24, 5, generator=generator, dtype=torch.float64),
        "noise": 0.3 * torch.randn(24, 5, generator=generator, dtype=torch.float64),
    }
    found: list[list[dict[str, Any]]] = []
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        found.append(in_processes(world, SCRIPT, given, folder))
    alone = found[0][0]
    assert alone["steps"] == 3
    assert alone["prior"].std() > 0
    for one in found[1]:
        assert one["steps"] == 3
        assert torch.allclose(one["prior"], alone["prior"])
        for mine, theirs in zip(one["weights"], alone["weights"], strict=True):
            assert torch.allclose(mine, theirs, atol=1e-9)
    assert found[1][0]["losses"] != found[1][1]["losses"], "each has its own half in the method's loss"
