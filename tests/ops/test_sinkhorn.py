"""Sinkhorn: against POT, against its own definition, and at the edges."""

from __future__ import annotations

import copy
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops import sinkhorn
from evensphere.ops.sinkhorn import Pace, transport_plan


def random_scores(n: int, k: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return normalize(torch.randn(n, k, dtype=dtype, generator=torch.Generator().manual_seed(seed)), dim=1)


def uneven_prior(k: int) -> Tensor:
    prior = 1 / torch.arange(1, k + 1, dtype=torch.float64)
    return prior / prior.sum()


@pytest.mark.parametrize(("n", "k"), [(64, 10), (50, 3), (8, 20)])
@pytest.mark.parametrize("even", [True, False])
def test_agrees_with_pot(n: int, k: int, even: bool) -> None:
    scores = random_scores(n, k)
    prior = torch.full((k,), 1 / k, dtype=torch.float64) if even else uneven_prior(k)
    rows = np.full(n, 1 / n)
    expected = ot.sinkhorn(
        rows, prior.numpy(), -scores.numpy(), reg=0.1, numItermax=20_000, stopThr=1e-15, method="sinkhorn_log"
    )
    plan = transport_plan(scores, None if even else prior, temperature=0.1, max_iterations=5000, tolerance=1e-14)
    np.testing.assert_allclose(plan.assignment.numpy() / n, expected, atol=1e-8)


def slow_plan(scores: Tensor, prior: Tensor, temperature: float, iterations: int) -> list[list[float]]:
    """The iteration in exp space, one number at a time."""
    n, k = scores.shape
    q = [[float(torch.exp(scores[i, j] / temperature)) for j in range(k)] for i in range(n)]
    for i in range(n):
        total = sum(q[i])
        q[i] = [value / total for value in q[i]]
    for _ in range(iterations):
        for j in range(k):
            column = sum(q[i][j] for i in range(n))
            for i in range(n):
                q[i][j] *= float(prior[j]) * n / column
        for i in range(n):
            total = sum(q[i])
            q[i] = [value / total for value in q[i]]
    return q


@pytest.mark.parametrize("iterations", [1, 2, 17])
def test_equals_the_iteration_written_out(iterations: int) -> None:
    scores, prior = random_scores(7, 4), uneven_prior(4)
    plan = transport_plan(scores, prior, 0.3, max_iterations=iterations, tolerance=0)
    np.testing.assert_allclose(plan.assignment.numpy(), slow_plan(scores, prior, 0.3, iterations), atol=1e-12)
    assert plan.iterations == iterations


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000), st.sampled_from([0.02, 0.05, 0.5]))
@settings(max_examples=60, deadline=None)
def test_rows_sum_to_one_and_the_error_is_the_true_one(n: int, k: int, seed: int, temperature: float) -> None:
    prior = torch.rand(k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    plan = transport_plan(random_scores(n, k, seed), prior, temperature, max_iterations=20, tolerance=0)
    assert torch.allclose(plan.assignment.sum(1), torch.ones(n, dtype=torch.float64), atol=1e-12)
    true_error = (plan.assignment.mean(0) - prior / prior.sum()).abs().sum()
    assert plan.marginal_error.item() == pytest.approx(true_error.item(), abs=1e-12)


def test_stops_when_converged_and_says_so() -> None:
    scores = random_scores(512, 100, dtype=torch.float32)
    plan = transport_plan(scores, tolerance=1e-4)
    assert plan.marginal_error <= 1e-4
    assert 2 < plan.iterations < 30
    assert transport_plan(scores, tolerance=1e-2).iterations < plan.iterations
    exact = transport_plan(scores, tolerance=0)
    assert exact.iterations == 300
    assert (plan.assignment - exact.assignment).abs().max() < 1e-3


def test_an_unconverged_plan_reports_its_error() -> None:
    assert (
        transport_plan(random_scores(64, 10), uneven_prior(10), 0.01, max_iterations=1, tolerance=1e-9).marginal_error
        > 0.01
    )


def test_a_region_without_data_gets_exactly_nothing() -> None:
    prior = uneven_prior(6)
    prior[[1, 4]] = 0
    plan = transport_plan(random_scores(30, 6), prior, tolerance=1e-12)
    assert (plan.assignment[:, [1, 4]] == 0).all()
    assert torch.allclose(plan.assignment.mean(0), prior / prior.sum(), atol=1e-10)


def test_permuting_the_batch_permutes_the_plan() -> None:
    scores, order = random_scores(20, 5), torch.randperm(20, generator=torch.Generator().manual_seed(1))
    plan = transport_plan(scores, uneven_prior(5)).assignment
    assert torch.allclose(transport_plan(scores[order], uneven_prior(5)).assignment, plan[order], atol=1e-14)


def test_problems_solved_together_equal_problems_solved_alone() -> None:
    scores = torch.stack([random_scores(30, 8, seed) for seed in range(3)])
    together = transport_plan(scores, uneven_prior(8), max_iterations=50, tolerance=0).assignment
    for one, plan in zip(scores, together, strict=True):
        assert torch.allclose(plan, transport_plan(one, uneven_prior(8), max_iterations=50, tolerance=0).assignment)


def test_half_precision_is_computed_in_float32() -> None:
    """exp(1 / 0.05 * 2) does not fit in float16."""
    scores = random_scores(64, 10, dtype=torch.float32)
    plan = transport_plan(scores.half())
    assert plan.assignment.dtype == torch.float32
    assert torch.allclose(plan.assignment, transport_plan(scores.half().float()).assignment)


def test_extreme_scores_neither_overflow_nor_underflow() -> None:
    scores = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]])
    plan = transport_plan(scores * 1000, torch.tensor([0.5, 0.5]), temperature=0.05)
    assert torch.isfinite(plan.assignment).all()


@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
def test_equals_the_iteration_in_logarithms_whatever_the_range(spread: float) -> None:
    """At 30 / 0.05 most of the kernel underflows; u and v leave the range of float32 and move into the potentials."""
    scores, prior = spread * random_scores(40, 6, dtype=torch.float32), uneven_prior(6).float()
    plan = transport_plan(scores, prior, max_iterations=200, tolerance=0)
    logits, column = scores.double() / 0.05, torch.zeros(6, dtype=torch.float64)
    row = -logits.logsumexp(1, keepdim=True)
    for _ in range(200):
        column = (40 * prior.double()).log() - (logits + row).logsumexp(0)
        row = -(logits + column).logsumexp(1, keepdim=True)
    assert (plan.assignment - (logits + column + row).exp()).abs().max() < 2e-4 * max(1, spread / 30)


def test_moving_u_and_v_into_the_potentials_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, prior = random_scores(40, 6), uneven_prior(6)
    expected = transport_plan(scores, prior, max_iterations=35, tolerance=0)
    monkeypatch.setattr(sinkhorn, "_LARGEST_FACTOR", 0.0)
    with mock.patch.object(sinkhorn._Kernel, "absorb", autospec=True, side_effect=sinkhorn._Kernel.absorb) as absorb:
        moved = transport_plan(scores, prior, max_iterations=35, tolerance=0)
    assert absorb.call_count == 3
    assert torch.allclose(moved.assignment, expected.assignment, atol=1e-13)
    assert moved.marginal_error.item() == pytest.approx(expected.marginal_error.item(), abs=1e-13)


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, prior = 3 * random_scores(103, 7), uneven_prior(7)
    prior[2] = 0
    whole = transport_plan(scores, prior, max_iterations=35, tolerance=0).assignment
    monkeypatch.setattr(sinkhorn, "_BLOCK", 7 * 10)
    blocked = transport_plan(scores, prior, max_iterations=35, tolerance=0).assignment
    assert torch.allclose(blocked, whole, atol=1e-13)


_PEAK = """
import torch
from pathlib import Path
from evensphere.ops.sinkhorn import transport_plan

def mebibytes(kind):
    return int(Path("/proc/self/status").read_text().split(kind + ":")[1].split()[0]) / 1024

scores = torch.rand(16_384, 1_024)
transport_plan(scores[:64])
before = mebibytes("VmRSS")
plan = transport_plan(scores, max_iterations=30, tolerance=0)
print(mebibytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to say what a process took at most")
def test_a_large_problem_takes_no_memory_but_its_result() -> None:
    """The scores are 64 MiB, and so is the result; beside it only blocks and vectors are made."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert 60 < float(done.stdout) < 64 + 8


# --- where nobody waits for the error ---------------------------------------------------------------------------------


def problem(step: int) -> Tensor:
    return random_scores(64, 5, seed=step, dtype=torch.float32)


def paced(pace: Pace, steps: range) -> list[tuple[int, float]]:
    """(iterations, error) of problems solved one after another at a pace."""
    taken = []
    for step in steps:
        plan = transport_plan(problem(step), uneven_prior(5), 0.05, *pace.limits(torch.device("cpu")))
        pace.record(plan.marginal_error)
        taken.append((plan.iterations, plan.marginal_error.item()))
    return taken


def test_where_the_error_is_free_to_read_nothing_is_planned() -> None:
    pace = Pace(300, 1e-4)
    assert paced(pace, range(3)) == [
        (plan.iterations, plan.marginal_error.item())
        for plan in (transport_plan(problem(step), uneven_prior(5)) for step in range(3))
    ]
    assert pace.state_dict() == Pace(300, 1e-4).state_dict()
    assert Pace(300, 0.0, waits=()).limits(torch.device("cpu")) == (300, 0.0), "without a tolerance all are taken"


@pytest.mark.parametrize("tolerance", [1e-1, 1e-4])
def test_the_pace_finds_the_iterations_that_the_tolerance_needs(
    tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinkhorn, "_FIRST", 20)
    taken = paced(Pace(300, tolerance, waits=()), range(240))[180:]
    needed = [transport_plan(problem(s), uneven_prior(5), tolerance=tolerance).iterations for s in range(180, 240)]
    assert sum(error > tolerance for _, error in taken) <= 6, "nearly all problems are solved to the tolerance"
    assert max(iterations for iterations, _ in taken) < 2 * max(needed), "and hardly more is done than that takes"


def test_the_pace_keeps_its_bounds() -> None:
    pace = Pace(60, 1e-12, waits=())
    assert max(iterations for iterations, _ in paced(pace, range(40))) == 60
    easy = Pace(60, 0.5, waits=())
    for _ in range(2000):
        easy.record(torch.tensor(0.0))
    assert easy.iterations == 1


def test_an_error_is_read_late_and_judged_by_the_iterations_it_had() -> None:
    pace = Pace(300, 1e-4, waits=())
    first = pace.iterations
    numbers = []
    for _ in range(30):
        pace.record(torch.tensor(1.0))
        numbers.append(pace.iterations)
    changes = [step for step, (old, new) in enumerate(pairwise([first, *numbers])) if old != new]
    assert changes == [8, 17, 26], "the errors under way when it changed belong to the number before"
    assert numbers[8] == first * 1.5


def test_a_pace_that_is_saved_and_loaded_goes_on_alike() -> None:
    unbroken, resumed = Pace(300, 1e-3, waits=()), Pace(300, 1e-3, waits=())
    paced(unbroken, range(37))
    resumed.load_state_dict(copy.deepcopy(unbroken.state_dict()))
    assert paced(resumed, range(37, 120)) == paced(unbroken, range(37, 120))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_paced_problem_never_waits() -> None:
    scores, prior = problem(0).cuda(), uneven_prior(5).float().cuda()
    pace = Pace(300, 1e-4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(30):
            plan = transport_plan(scores, prior, 0.05, *pace.limits(scores.device))
            pace.record(plan.marginal_error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (plan.assignment.cpu() - transport_plan(scores.cpu(), prior.cpu()).assignment).abs().max() < 1e-3


def test_no_gradient_flows() -> None:
    scores = random_scores(8, 3).requires_grad_()
    assert not transport_plan(scores).assignment.requires_grad


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"max_iterations": 0}, {"prior": torch.ones(3)}]
)
def test_bad_input_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        transport_plan(random_scores(4, 5), **options)  # type: ignore[arg-type]
