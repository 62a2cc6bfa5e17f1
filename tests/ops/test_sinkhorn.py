"""Sinkhorn: against POT, against its own definition, and at the edges."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops.sinkhorn import transport_plan


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


def test_no_gradient_flows() -> None:
    scores = random_scores(8, 3).requires_grad_()
    assert not transport_plan(scores).assignment.requires_grad


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"max_iterations": 0}, {"prior": torch.ones(3)}]
)
def test_bad_input_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        transport_plan(random_scores(4, 5), **options)  # type: ignore[arg-type]
