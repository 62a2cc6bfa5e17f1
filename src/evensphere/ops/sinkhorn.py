"""Entropic optimal transport between a batch of samples and a set of regions (Cuturi, NeurIPS 2013).

The problem: among all assignments Q [N, K] whose rows each sum to 1 and whose mean row is the prior, find the one that
maximises  sum(Q * scores) / temperature + entropy(Q).  Its solution is Q = exp(scores / temperature + f + g) with one
number f per row and one number g per column, and Sinkhorn's iterations set them in turn so that the columns, then the
rows, have the right sums. Everything happens in logarithms: a score of 1 at temperature 0.05 is a factor of e^20.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from evensphere.errors import InputError
from evensphere.ops import collective

Real = Float32[Tensor, "..."] | Float64[Tensor, "..."]

_CUDA_CHECK_INTERVAL = 10  # on a GPU reading the error stops the queue of kernels, so it is read every 10th iteration


class Plan(NamedTuple):
    """A transport plan.

    assignment: [..., N, K], rows sum to 1; float32, or float64 for float64 scores.
    iterations: how many were taken.
    marginal_error: sum over columns of |mean row - prior|, of this very assignment; the worst problem of a stack.
    """

    assignment: Float[Tensor, "... n k"]
    iterations: int
    marginal_error: Float[Tensor, ""]


@torch.no_grad()
def transport_plan(
    scores: Float[Tensor, "... n k"],
    prior: Float[Tensor, " columns"] | None = None,
    temperature: float = 0.05,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
) -> Plan:
    """Soft assignments whose rows sum to 1 and whose mean row is the prior (the paper's surrogate labels, section 3.3).

    scores: [N, K], or several problems of one size [..., N, K] solved together. Half precision is computed in float32.
    prior: [K], >= 0, scaled to sum to 1; None means equal shares. A column of prior 0 gets exactly 0.
    temperature: > 0; smaller is closer to a hard assignment and needs more iterations.
    tolerance: stop once the marginal error (see Plan) is at most this; 0 takes all `max_iterations`.
    No gradient flows through the plan. Raises InputError for a temperature, prior or bound out of range.

    >>> plan = transport_plan(torch.tensor([[1.0, 0.0], [0.9, 0.0]]), temperature=0.1)
    >>> [[round(q, 2) for q in row] for row in plan.assignment.tolist()]
    [[0.62, 0.38], [0.38, 0.62]]
    """
    if not temperature > 0:
        raise InputError(f"A Sinkhorn temperature of {temperature} was given; it must be above 0 (the paper: 0.05).")
    if max_iterations < 1:
        raise InputError(f"max_iterations = {max_iterations} was given; Sinkhorn needs at least 1.")
    with torch.autocast(scores.device.type, enabled=False):
        return _solve(_real(scores) / temperature, prior, max_iterations, tolerance)


def shared_plan(
    scores: Float[Tensor, "... n k"],
    prior: Float[Tensor, " columns"] | None = None,
    temperature: float = 0.05,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
    past: Float[Tensor, "rows k"] | None = None,
) -> Plan:
    """`transport_plan` of the rows of all processes together, of which each keeps the assignment of its own.

    past: scores that take part in every problem but are given no assignment, the same on all processes.
    """
    rows = scores.shape[-2]
    everyone = collective.gather(scores.detach().movedim(-2, 0)).movedim(0, -2)
    if past is not None:
        everyone = torch.cat([everyone, past.to(everyone).expand(*scores.shape[:-2], -1, -1)], dim=-2)
    plan = transport_plan(everyone, prior, temperature, max_iterations, tolerance)
    return plan._replace(assignment=plan.assignment.narrow(-2, collective.rank() * rows, rows))


def _solve(logits: Real, prior: Tensor | None, max_iterations: int, tolerance: float) -> Plan:
    share = _shares(prior, logits)
    log_share = share.log() + torch.tensor(float(logits.shape[-2])).log().to(share)  # column sums of rows that sum to 1
    check_interval = _CUDA_CHECK_INTERVAL if logits.is_cuda else 1
    row = -logits.logsumexp(-1, keepdim=True)
    column = torch.zeros_like(logits[..., :1, :])
    column_sum = (logits + row).logsumexp(-2, keepdim=True)
    iterations = 0
    while iterations < max_iterations:
        column = log_share - column_sum
        row = -(logits + column).logsumexp(-1, keepdim=True)
        column_sum = (logits + row).logsumexp(-2, keepdim=True)
        iterations += 1
        checked = tolerance > 0 and iterations % check_interval == 0
        if checked and _marginal_error(column + column_sum, share, logits) <= tolerance:
            break
    assignment = (logits + column + row).exp()
    return Plan(assignment, iterations, _marginal_error(column + column_sum, share, logits))


def _marginal_error(log_column_sum: Tensor, share: Tensor, logits: Tensor) -> Tensor:
    """sum_k |mean row - prior|: the column sums are known from the iteration, no pass over [N, K] is needed."""
    mean_row = log_column_sum.exp() / logits.shape[-2]
    return (mean_row - share).abs().sum(-1).max()


def _shares(prior: Tensor | None, like: Tensor) -> Tensor:
    """The prior as shares that sum to 1, in the dtype and on the device of `like`."""
    if prior is None:
        return torch.full((like.shape[-1],), 1 / like.shape[-1], dtype=like.dtype, device=like.device)
    if prior.shape != like.shape[-1:]:
        raise InputError(f"A prior of shape {tuple(prior.shape)} was given for {like.shape[-1]} columns; give [K].")
    share = prior.to(like)
    return share / share.sum()


def _real(scores: Tensor) -> Real:
    return scores.detach() if scores.dtype == torch.float64 else scores.detach().float()
