"""Entropic optimal transport between a batch of samples and a set of regions (Cuturi, NeurIPS 2013).

The problem: among all assignments Q [N, K] whose rows each sum to 1 and whose mean row is the prior, find the one that
maximises  sum(Q * scores) / temperature + entropy(Q).  Its solution is Q_ik = u_i exp(scores_ik / temperature) v_k, and
Sinkhorn's iterations set the columns' factors v and the rows' factors u in turn, so that the columns, then the rows,
have the right sums.

A score of 1 at temperature 0.05 is a factor of e^20, so the exponential of the scores alone would not do. Here it is
taken with a potential of every row and every column already inside: exp(scores / temperature + f_i + g_k), once. From
there on an iteration is two products of that kernel with a vector. Should u or v grow too large for the dtype, they
move into f and g and the exponential is taken anew (Schmitzer, SIAM J. Sci. Comput. 2019, section 3.1). The kernel is
kept in the memory of the result: nothing else of size N x K is ever made.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from evensphere.errors import InputError
from evensphere.ops import collective
from evensphere.ops.precision import no_autocast
from evensphere.ops.transfer import Late

Real = Float32[Tensor, "..."] | Float64[Tensor, "..."]

_CUDA_CHECK_INTERVAL = 10  # on a GPU reading the error stops the queue of kernels, so it is read every 10th iteration
_ABSORB_INTERVAL = 10  # iterations between looks at the size of u and v
_LARGEST_FACTOR = math.exp(30)  # of u and v: their product with what float32 rounds to 0 is still nothing
_BLOCK = 2**19  # numbers of a block of rows, which is what stays in a core's cache for both products of an iteration
_FIRST, _LATE, _WINDOW = 50, 8, 16  # of a Pace: iterations to begin with, calls until an error is read, errors judged


class Plan(NamedTuple):
    """A transport plan.

    assignment: [..., N, K], rows sum to 1; float32, or float64 for float64 scores.
    iterations: how many were taken; of a stack, by the problem that took most.
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

    scores: [N, K], or several problems of one size [..., N, K]. Half precision is computed in float32.
    prior: [K], >= 0, scaled to sum to 1; None means equal shares. A column of prior 0 gets exactly 0.
    temperature: > 0; smaller is closer to a hard assignment and needs more iterations.
    tolerance: stop once the marginal error (see Plan) is at most this; 0 takes all `max_iterations`, and the host never
        waits for a GPU.
    No gradient flows through the plan. Raises InputError for a temperature, prior or bound out of range.

    >>> plan = transport_plan(torch.tensor([[1.0, 0.0], [0.9, 0.0]]), temperature=0.1)
    >>> [[round(q, 2) for q in row] for row in plan.assignment.tolist()]
    [[0.62, 0.38], [0.38, 0.62]]
    """
    if not temperature > 0:
        raise InputError(f"A Sinkhorn temperature of {temperature} was given; it must be above 0 (the paper: 0.05).")
    if max_iterations < 1:
        raise InputError(f"max_iterations = {max_iterations} was given; Sinkhorn needs at least 1.")
    rows, columns = scores.shape[-2:]
    assignment = torch.empty(scores.shape, dtype=_real(scores.dtype), device=scores.device)
    shares = _shares(prior, assignment)
    with no_autocast(scores):
        solved = [
            _solve(_Kernel(problem, shares, 1 / temperature, memory), rows * shares, max_iterations, tolerance)
            for problem, memory in zip(
                scores.detach().reshape(-1, rows, columns), assignment.view(-1, rows, columns), strict=True
            )
        ]
    iterations, errors = zip(*solved, strict=True)
    return Plan(assignment, max(iterations), torch.stack(errors).max())


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
    return plan._replace(assignment=plan.assignment.narrow(-2, collective.begin(rows), rows))


class Pace:
    """How many iterations to take where nobody can wait for the error: on a GPU, reading it stops the queue of kernels.

    The number follows the errors of the problems before. Each error sets out for the host when it is recorded and is
    read `_LATE` records later, when it arrived long ago. (Read as soon as it is there, it would make the number, and
    with it the bits of a run, depend on the day.) One error above the tolerance means half as many iterations again; a
    window of them far below it a tenth less.

    max_iterations, tolerance: as of `transport_plan`. waits: devices on which the error is free to read, so that there
        each problem is solved to the tolerance and nothing has to be planned.
    """

    def __init__(self, max_iterations: int, tolerance: float, waits: tuple[str, ...] = ("cpu",)) -> None:
        self.max_iterations, self.tolerance, self.waits = max_iterations, tolerance, waits
        self.iterations = min(_FIRST, max_iterations)
        self._under_way: deque[tuple[int, Late]] = deque()
        self._window: list[float] = []  # errors of problems with the present number of iterations

    def limits(self, device: torch.device) -> tuple[int, float]:
        """max_iterations and tolerance of the next problem on this device."""
        if self._is_free_to_read(device):
            return self.max_iterations, self.tolerance
        return self.iterations, 0.0

    def record(self, error: Float[Tensor, ""]) -> None:
        """Take in the marginal error of a problem that had the present limits."""
        if self._is_free_to_read(error.device):
            return
        self._under_way.append((self.iterations, Late(error)))
        if len(self._under_way) > _LATE:
            iterations, late = self._under_way.popleft()
            if iterations == self.iterations:
                self._adapt(late.read())

    def _adapt(self, error: float) -> None:
        self._window.append(error)
        if not error <= self.tolerance:
            self._change_to(self.iterations + math.ceil(self.iterations / 2))
        elif len(self._window) == _WINDOW:
            spare = max(self._window) < self.tolerance / 4
            self._change_to(self.iterations - math.ceil(self.iterations / 10) * spare)

    def _change_to(self, iterations: int) -> None:
        self.iterations = max(1, min(self.max_iterations, iterations))
        self._window.clear()

    def _is_free_to_read(self, device: torch.device) -> bool:
        return self.tolerance <= 0 or device.type in self.waits

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; waits for the errors that are under way."""
        under_way = [[iterations, late.read()] for iterations, late in self._under_way]
        return {"iterations": self.iterations, "window": list(self._window), "under_way": under_way}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.iterations, self._window = state["iterations"], list(state["window"])
        self._under_way = deque((iterations, Late(torch.tensor(error))) for iterations, error in state["under_way"])


def _solve(kernel: _Kernel, target: Tensor, max_iterations: int, tolerance: float) -> tuple[int, Tensor]:
    """Turn the kernel into the assignment. target: [K], what the columns are to sum to."""
    check_interval = _CUDA_CHECK_INTERVAL if target.is_cuda else 1
    v = kernel.equal_columns()
    u, sums = kernel.balance_rows(v)
    iterations = 0
    while iterations < max_iterations:
        v = target / sums
        u, sums = kernel.balance_rows(v)
        iterations += 1
        if tolerance > 0 and iterations % check_interval == 0 and _distance(v * sums, target) <= tolerance:
            break
        if iterations % _ABSORB_INTERVAL == 0 and (target.is_cuda or _out_of_range(u, v)):
            kernel.absorb(u, v)
            u, v, sums = torch.ones_like(u), torch.ones_like(v), v * sums
    kernel.scale(u, v)
    return iterations, _distance(v * sums, target)


def _distance(sums: Tensor, target: Tensor) -> Tensor:
    """sum_k |mean row - prior|: the column sums are known from the iteration, no pass over [N, K] is needed."""
    return torch.dist(sums, target, p=1) / target.sum()


def _out_of_range(u: Tensor, v: Tensor) -> bool:
    return max(float(u.max()), float(v.max())) > _LARGEST_FACTOR


class _Kernel:
    """exp(scores * sharpness + row + column), in the memory of the result: `entries`, [N, K].

    It is gone through in blocks of rows, so that a block is read from main memory once for all that is done with it. On
    a GPU there is one block. A column without a share is 0 throughout.
    """

    def __init__(self, scores: Tensor, shares: Tensor, sharpness: float, memory: Tensor) -> None:
        self.scores, self.sharpness, self.entries = scores, sharpness, memory
        count = len(scores) if scores.is_cuda else max(1, _BLOCK // len(shares))
        self.blocks = [slice(first, first + count) for first in range(0, len(scores), count)]
        self.row, self.u = memory.new_empty(len(scores), 1), memory.new_empty(len(scores))
        self.column = torch.zeros_like(shares).masked_fill_(shares == 0, -torch.inf)
        self._start()

    def _start(self) -> None:
        """Potentials that make 1 the largest entry of every row and every column: nothing overflows, and no row or
        column is 0, whatever the scores."""
        top = torch.full_like(self.column, -torch.inf)
        for block in self.blocks:
            entries = self._logits(block)
            self.row[block] = -entries.amax(1, keepdim=True)
            top = torch.maximum(top, entries.add_(self.row[block]).amax(0))
        self.column -= top.clamp_(min=torch.finfo(top.dtype).min)
        for block in self.blocks:
            self.entries[block].sub_(top).exp_()

    def _logits(self, block: slice) -> Tensor:
        """scores * sharpness + column, in the memory of the entries."""
        return torch.add(self.column, self.scores[block], alpha=self.sharpness, out=self.entries[block])

    def equal_columns(self) -> Tensor:
        """v by which all columns have potential 0 at the start."""
        return (-self.column).exp_().masked_fill_(self.column == -torch.inf, 0)

    def balance_rows(self, v: Float[Tensor, " k"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " k"]]:
        """u by which the rows sum to 1 between u and v, and what the columns then sum to, before v: above 0, also where
        there is nothing."""
        sums = torch.full_like(v, torch.finfo(v.dtype).tiny)
        for block in self.blocks:
            u = torch.mv(self.entries[block], v, out=self.u[block]).reciprocal_()
            sums.addmv_(self.entries[block].T, u)
        return self.u, sums

    def absorb(self, u: Float[Tensor, " n"], v: Float[Tensor, " k"]) -> None:
        """Move u and v into the potentials."""
        self.row += u.log().unsqueeze(1)
        self.column += v.log()
        for block in self.blocks:
            self._logits(block).add_(self.row[block]).exp_()

    def scale(self, u: Float[Tensor, " n"], v: Float[Tensor, " k"]) -> None:
        """Turn the entries into the assignment."""
        for block in self.blocks:
            self.entries[block].mul_(v).mul_(u[block].unsqueeze(1))


def _shares(prior: Tensor | None, like: Tensor) -> Tensor:
    """The prior as shares that sum to 1, in the dtype and on the device of `like`."""
    if prior is None:
        return torch.full((like.shape[-1],), 1 / like.shape[-1], dtype=like.dtype, device=like.device)
    if prior.shape != like.shape[-1:]:
        raise InputError(f"A prior of shape {tuple(prior.shape)} was given for {like.shape[-1]} columns; give [K].")
    share = prior.to(like)
    return share / share.sum()


def _real(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32
