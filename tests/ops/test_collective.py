"""Two processes that share a batch get the losses and gradients of one that has it all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from evensphere.gh.harmonizer import Harmonizer, harmonization_loss
from evensphere.methods.barlow import barlow_terms
from evensphere.methods.pmsn import power_law, prior_divergence
from evensphere.methods.vicreg import vicreg_terms
from evensphere.nn.memory import Queue
from evensphere.ops import collective
from evensphere.ops.contrast import batch_info_nce, info_nce
from evensphere.ops.sinkhorn import shared_plan

# Each of two processes has half of the batch; writes its losses, gradients and population statistics.
SCRIPT = """
import sys
import torch, torch.distributed as dist
from evensphere.gh.harmonizer import Harmonizer, harmonization_loss
from evensphere.methods.barlow import barlow_terms
from evensphere.methods.pmsn import power_law, prior_divergence
from evensphere.methods.vicreg import vicreg_terms
from evensphere.nn.memory import Queue
from evensphere.ops.contrast import batch_info_nce, info_nce
from evensphere.ops.sinkhorn import shared_plan

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
half = slice(6 * rank, 6 * rank + 6)
z1, z2 = (given[name][half].clone().requires_grad_() for name in ("z1", "z2"))
losses = (
    info_nce(z1, z2).mean(),
    harmonization_loss(z1, z2, given["anchors"], given["prior"]),
    sum(barlow_terms(z1, z2)),
    sum(vicreg_terms(z1, z2)),
    prior_divergence(torch.stack([z1, z2]), power_law(5, 0.5), 0.3),
    batch_info_nce(z1, z2).mean(),
)
gradients = [torch.autograd.grad(loss, (z1, z2)) for loss in losses]
harmonizer = Harmonizer(5, num_samples=12, anchors=given["anchors"].float(), warm_up=1, ramp=0, update_every=1)
harmonizer((z1, z2), given["index"][half])
torch.manual_seed(rank)  # the queue's start must not depend on it
queue = Queue(20, 5)
queue.push(z1)
result = {
    "losses": losses,
    "gradients": gradients,
    "pi": harmonizer.prior,
    "plan": shared_plan(torch.stack([z1, z2])).assignment,
    "queue": queue.get_extra_state(),
}
torch.save(result, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_alone_everything_is_given_back() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert collective.gather(rows) is rows
    assert (collective.world_size(), collective.rank()) == (1, 0)


def test_two_processes_equal_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {"z1": (12, 5), "z2": (12, 5), "anchors": (4, 5)}
    given = {name: torch.randn(size, dtype=torch.float64, generator=generator) for name, size in sizes.items()}
    given |= {"prior": torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64), "index": torch.arange(12).flip(0)}
    torch.save(given, tmp_path / "given.pt")
    commands = [[sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]

    z1, z2 = given["z1"].requires_grad_(), given["z2"].requires_grad_()
    losses = (
        info_nce(z1, z2).mean(),
        harmonization_loss(z1, z2, given["anchors"], given["prior"]),
        torch.stack(barlow_terms(z1, z2)).sum(),
        torch.stack(vicreg_terms(z1, z2)).sum(),
        prior_divergence(torch.stack([z1, z2]), power_law(5, 0.5), 0.3),
        batch_info_nce(z1, z2).mean(),
    )
    for number, loss in enumerate(losses):
        assert torch.allclose(mean_of(parts, "losses", number), loss, atol=1e-12)
        for view, expected in enumerate(torch.autograd.grad(loss, (z1, z2))):
            # data parallelism averages the gradients of the processes, hence the half
            gathered = torch.cat([part["gradients"][number][view] for part in parts]) / 2
            assert torch.allclose(gathered, expected, atol=1e-12)
    alone = Harmonizer(5, num_samples=12, anchors=given["anchors"].float(), warm_up=1, ramp=0, update_every=1)
    alone((z1, z2), given["index"])
    assert all(torch.equal(part["pi"], alone.prior) for part in parts)
    plan = shared_plan(torch.stack([z1, z2])).assignment
    assert torch.allclose(torch.cat([part["plan"] for part in parts], dim=1), plan, atol=1e-12)
    queue = Queue(20, 5)
    queue.push(z1)
    assert all(torch.equal(part["queue"]["rows"], queue.rows) and part["queue"]["next"] == 12 for part in parts)


def mean_of(parts: list[dict[str, list[Tensor]]], name: str, number: int) -> Tensor:
    return torch.stack([part[name][number] for part in parts]).mean()
