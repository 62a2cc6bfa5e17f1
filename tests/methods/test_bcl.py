"""BCL: the golden weights, the memory as a slow loop, and when the views get to know."""

from __future__ import annotations

import copy
import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.methods.base import Output
from evensphere.methods.bcl import BCL, momentum_weight
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

N, B = 12, 6
GOLDEN = Path(__file__).parents[1] / "golden" / "groups.npz"


def make(seed: int = 0, **options: float) -> BCL:
    torch.manual_seed(seed)
    return BCL(resnet_small(1, width=4, stages=2), N, embedding_dim=8, **options)  # type: ignore[arg-type]


def losses_of(step: int) -> Tensor:
    return torch.rand(B, generator=torch.Generator().manual_seed(step)) * 4


def batches_of(epoch: int) -> tuple[Tensor, ...]:
    return tuple(torch.randperm(N, generator=torch.Generator().manual_seed(100 + epoch)).view(2, B))


def visit(method: BCL, index: Tensor, losses: Tensor, progress: Progress) -> None:
    z = torch.zeros(len(index), 8)
    method.after_step(index, Output(losses.mean(), (z, z), {}, losses), progress)


# --- the weights


def test_weights_equal_the_reference_code() -> None:
    golden = np.load(GOLDEN)
    weight = momentum_weight(torch.from_numpy(golden["bcl_momentum_loss"]))
    expected = torch.from_numpy(golden["bcl_momentum_weight"])
    assert weight.shape == expected.shape == (500, 1)
    torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.floats(0.1, 10), st.floats(-100, 100))
def test_weights_rank_images_within_0_and_1_whatever_the_unit_of_the_loss(
    losses: list[float], scale: float, shift: float
) -> None:
    loss = torch.tensor(losses, dtype=torch.float64)
    weight = momentum_weight(loss)
    assert ((weight >= -1e-12) & (weight <= 1 + 1e-12)).all()
    assert (weight[loss.argsort()].diff() >= -1e-9).all()
    if loss.std() > 1e-3:
        assert torch.allclose(momentum_weight(loss * scale + shift), weight, atol=1e-6)
        assert (weight - 0.5).abs().max() == pytest.approx(0.5)


def test_equal_losses_weigh_one_half() -> None:
    assert torch.equal(momentum_weight(torch.full((4,), 2.0)), torch.full((4,), 0.5))


# --- the memory


@pytest.mark.parametrize("momentum", [0.97, 0.5, 0.0])
def test_the_memory_equals_a_slow_loop(momentum: float) -> None:
    method, average = make(momentum=momentum), [math.nan] * N
    weights = [0.0] * N
    for epoch in range(4):
        for place, index in enumerate(batches_of(epoch)):
            progress = Progress(2 * epoch + place, 2, 8)
            assert torch.allclose(method.view_strength(index), torch.tensor(weights)[index], atol=1e-6)
            losses = losses_of(progress.step)
            visit(method, index, losses, progress)
            for i, loss in zip(index.tolist(), losses.tolist(), strict=True):
                average[i] = loss if epoch == 0 else momentum * average[i] + (1 - momentum) * loss
        mean = sum(average) / N
        furthest = max(abs(m - mean) for m in average)
        weights = [(m - mean) / (2 * furthest) + 1 / 2 for m in average]
    assert torch.allclose(method.losses.values[:, 0], torch.tensor(average), atol=1e-6)
    assert torch.allclose(method.view_strength(torch.arange(N)), torch.tensor(weights), atol=1e-6)


def test_in_the_first_epoch_nobody_is_augmented_and_then_from_epoch_to_epoch() -> None:
    method = make()
    everyone = torch.arange(N)
    for epoch in range(3):
        before = method.view_strength(everyone).clone()
        assert (before == 0).all() == (epoch == 0)
        first, last = batches_of(epoch)
        visit(method, first, losses_of(2 * epoch), Progress(2 * epoch, 2, 6))
        assert torch.equal(method.view_strength(everyone), before), "not in the middle of an epoch"
        visit(method, last, losses_of(2 * epoch + 1), Progress(2 * epoch + 1, 2, 6))
        assert not torch.equal(method.view_strength(everyone), before)


def test_images_never_visited_count_for_nothing() -> None:
    method = make()
    visit(method, torch.arange(B), losses_of(0), Progress(0, 1, 1))
    strength = method.view_strength(torch.arange(N))
    assert torch.allclose(strength[:B], momentum_weight(losses_of(0)))
    assert (strength[B:] == 0).all()


def test_memory_and_weights_are_in_a_checkpoint() -> None:
    method, other = make(), make(seed=1)
    for epoch in range(2):
        for place, index in enumerate(batches_of(epoch)):
            visit(method, index, losses_of(2 * epoch + place), Progress(2 * epoch + place, 2, 6))
    visit(method, batches_of(2)[0], losses_of(4), Progress(4, 2, 6))  # in the middle of an epoch
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    everyone = torch.arange(N)
    assert torch.equal(other.view_strength(everyone), method.view_strength(everyone))
    for one in (method, other):
        visit(one, batches_of(2)[1], losses_of(5), Progress(5, 2, 6))
    assert torch.equal(other.view_strength(everyone), method.view_strength(everyone))


def test_a_copy_that_was_given_the_state_goes_its_own_way() -> None:
    method = make()
    visit(method, torch.arange(B), losses_of(0), Progress(0, 1, 4))
    twin = copy.deepcopy(method)
    twin.load_state_dict(method.state_dict())
    before = method.losses.values.clone()
    visit(twin, torch.arange(B), losses_of(1), Progress(1, 1, 4))
    assert torch.equal(method.losses.values, before)


def test_the_memory_is_no_buffer() -> None:
    assert not [name for name, _ in make().named_buffers() if "losses" in name or "weights" in name]


# --- the loss, and what the memory is fed with


@pytest.mark.parametrize("batch", [2, 5, 12])
def test_the_loss_and_each_images_loss_are_nt_xent(batch: int) -> None:
    method = make(temperature=0.3).double()
    views = tuple(torch.randn(2, batch, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double())
    output = method(views, torch.arange(batch), Progress(0, 2, 8))
    everything = normalize(torch.cat(method.embed(views)), dim=1).tolist()
    terms = []
    for i, anchor in enumerate(everything):
        shares = [math.exp(sum(a * b for a, b in zip(anchor, z, strict=True)) / 0.3) for z in everything]
        terms.append(-math.log(shares[(i + batch) % (2 * batch)] / (sum(shares) - shares[i])))
    assert output.loss.item() == pytest.approx(sum(terms) / len(terms), abs=1e-12)
    method.after_step(torch.arange(batch), output, Progress(0, 2, 8))
    expected = [(terms[i] + terms[i + batch]) / 2 for i in range(batch)]
    assert torch.allclose(method.losses.values[:batch, 0], torch.tensor(expected), atol=1e-6)


# Each of two processes has half of the batch and must end with the weights of one that has all of it.
SCRIPT = """
import sys
import torch, torch.distributed as dist
from evensphere.methods.base import Output
from evensphere.methods.bcl import BCL
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

torch.set_num_threads(1)
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
half = slice(3 * rank, 3 * rank + 3)
losses, index, z = given["losses"][half], given["index"][half], torch.zeros(3, 8)
method = BCL(resnet_small(1, width=4, stages=2), 12, embedding_dim=8)
method.after_step(index, Output(losses.mean(), (z, z), {}, losses), Progress(0, 1, 4))
torch.save(method.weights, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_remember_what_one_would(tmp_path: Path) -> None:
    index, losses = batches_of(0)[0], losses_of(0)
    torch.save({"index": index, "losses": losses}, tmp_path / "given.pt")
    commands = [[sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    alone = make()
    visit(alone, index, losses, Progress(0, 1, 4))
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), alone.weights)


# --- mistakes


def test_it_needs_the_index() -> None:
    assert BCL.needs == {"index"}
    output = Output(torch.zeros(()), (), {}, torch.zeros(B))
    with pytest.raises(InputError, match="index"):
        make().after_step(None, output, Progress(0, 1, 1))


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}, {"temperature": 0.0}])
def test_mistakes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        make(0, **options)
