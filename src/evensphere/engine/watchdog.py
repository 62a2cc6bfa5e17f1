"""What keeps a run from ruin: a step that is no use is not taken, and a run that goes wrong is told so.

**Steps that are not finite.** A loss or gradient with an infinity or a NaN in it would end in every weight. Such a
step is skipped, as if it had never been: weights, the optimiser's state, BatchNorm's statistics, memories and pi stay
as they are. Several in a row, or many in all, stop the run.

On a CPU the gradient is looked at before the optimiser moves. The optimisers call their closure before they change
anything, so a closure that raises is a step not taken; only BatchNorm's statistics have moved in the forward pass, and
are put back. On a GPU that look would make the host wait at every step, so a run there trusts its steps: the verdict is
read some steps late, when it is there anyway. If it is bad, the run goes back to its last checkpoint, and from then on
looks at every step. Draws are addressed, so going back is what resuming is.

**Networks that go wrong.** At logged steps, numbers that are logged anyway are held against what no healthy run has
shown: embeddings that all point the same way, or lie along a line; a transport problem that was not solved; regions of
which a few hold everything. Each becomes one warning, until it recovers.

What was skipped and what was warned of is in metrics.jsonl, and is read from there when a run is resumed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.engine.sharding import local
from evensphere.ops import collective
from evensphere.ops.schedule import Progress
from evensphere.ops.transfer import Late

_LATE = 8  # steps until a verdict is read where reading it at once would make the host wait

Event = dict[str, Any]


class StepNotFinite(Exception):
    """Raised out of an optimiser's closure: the step must not be taken. loss: what it was."""

    def __init__(self, loss: float) -> None:
        super().__init__(f"the loss is {loss}, or its gradient is not finite")
        self.loss = loss


class Cause(NamedTuple):
    """Why a step is not taken. what: that was seen. advice: what most likely made it, and what to do."""

    what: str
    advice: str


class StepSkipped(Exception):
    """A step was not taken, and nothing has changed."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.what)
        self.cause = cause


class FoundLate(Exception):
    """A step that was taken should not have been: the state is ruined, and the last checkpoint is not."""


class Watchdog:
    """The watch over one run.

    in_a_row, in_total: so many skipped steps stop the run.
    settling: so many steps, and a tenth of the run, are gone before a network is judged.
    waits: devices on which each step is looked at before it is taken. Elsewhere a bad one raises FoundLate, up to some
        steps later, and only then the watch becomes careful.
    """

    def __init__(
        self, in_a_row: int = 5, in_total: int = 100, settling: int = 200, waits: tuple[str, ...] = ("cpu",)
    ) -> None:
        self.in_a_row, self.in_total, self.settling, self.waits = in_a_row, in_total, settling, waits
        self.careful = False
        self.skipped: list[int] = []  # steps
        self.warned: set[str] = set()  # kinds of warnings that hold
        self._buffers: list[tuple[Tensor, Tensor]] = []  # as they are, and as they were before the step
        self._under_way: deque[Late] = deque()

    # --- steps ----------------------------------------------------------------------------------------------------

    def looks_first(self, device: torch.device) -> bool:
        """Whether a step on this device is looked at before it is taken."""
        return self.careful or device.type in self.waits

    @torch.no_grad()
    def remember(self, method: nn.Module, device: torch.device) -> None:
        """Note what a forward pass moves, before a step."""
        if self.looks_first(device):
            self._buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]

    def look(self, loss: Float[Tensor, ""], parameters: Iterable[Tensor]) -> None:
        """Judge a step after its backward pass. Raises StepNotFinite where it must not be taken."""
        good = is_finite(loss, [local(parameter.grad) for parameter in parameters if parameter.grad is not None])
        if self.looks_first(loss.device):
            if not good:
                raise StepNotFinite(loss.item())
            return
        self._under_way.append(Late(good))
        if len(self._under_way) > _LATE:
            self._read()

    @torch.no_grad()
    def undo(self) -> None:
        """Put back what the forward pass of a step that is not taken has moved."""
        for buffer, before in self._buffers:
            buffer.copy_(before)

    def settle(self) -> None:
        """Read the verdicts that are under way. Raises FoundLate."""
        while self._under_way:
            self._read()

    def _read(self) -> None:
        if not self._under_way.popleft().read():
            self._under_way.clear()
            self.careful = True
            raise FoundLate

    def skip(self, step: int) -> str | None:
        """Count a step that was not taken. Why the run has to stop, if it has to."""
        self.skipped.append(step)
        last = self.skipped[-self.in_a_row :]
        if len(last) == self.in_a_row and last[0] == step - self.in_a_row + 1:
            return f"{self.in_a_row} steps in a row could not be taken"
        if len(self.skipped) >= self.in_total:
            return f"{len(self.skipped)} steps of this run could not be taken"
        return None

    def judge(self, measures: Mapping[str, float], progress: Progress) -> list[Event]:
        """What is to be told of a network by what was measured: signs that are new, and signs that are gone. A network
        that has only begun to learn often looks like one that goes wrong, so at first nothing is."""
        events: list[Event] = []
        if progress.step < max(self.settling, (progress.total_steps or 0) // 10):
            return events
        for sign in SIGNS:
            if sign.measure not in measures:
                continue
            value, warned = measures[sign.measure], sign.kind in self.warned
            holds = sign.holds(value, warned)
            if holds and not warned:
                self.warned.add(sign.kind)
                sentence = sign.sentence.format(value=value)
                events.append({"event": "warning", "kind": sign.kind, "value": value, "sentence": sentence})
            elif warned and not holds:
                self.warned.discard(sign.kind)
                events.append({"event": "recovered", "kind": sign.kind, "value": value})
        return events

    def resume(self, events: Sequence[Event]) -> None:
        """Take over what metrics.jsonl says of the run so far. A run that has skipped a step stays careful."""
        self.skipped = [event["step"] for event in events if event["event"] == "skipped"]
        self.careful = self.careful or bool(self.skipped)
        self.warned = set()
        for event in events:
            if event["event"] == "warning":
                self.warned.add(event["kind"])
            elif event["event"] == "recovered":
                self.warned.discard(event["kind"])


def is_finite(loss: Float[Tensor, ""], gradients: Sequence[Tensor]) -> Bool[Tensor, ""]:
    """Whether a loss and all gradients are finite, on every process, on their device: nothing waits.

    A gradient that is so large that its square overflows, from 1e19 in float32, counts as infinite.
    """
    norms = torch.stack([*torch._foreach_norm(list(gradients)), loss.detach().abs()]) if gradients else loss.detach()
    return collective.total((~norms.isfinite()).sum().float()) == 0


# --- why ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def cause_of(
    loss: float,
    views: Sequence[Float[Tensor, "batch c _ _"]],
    index: Int64[Tensor, " batch"],
    parameters: Iterable[Tensor],
    rate: float,
) -> Cause:
    """What was wrong with a step that was not taken. rate: the learning rate."""
    finite = torch.stack([view.isfinite().flatten(1).all(1) for view in views]).all(0).cpu()
    if not finite.all():
        images = index[~finite].tolist()
        some = ", ".join(map(str, images[:5])) + (" ..." if len(images) > 5 else "")
        return Cause(f"pixels of {len(images)} image(s) of the batch are not finite (number {some})", _IMAGES)
    if not all_finite(parameters):
        return ruin(rate)
    what = f"the gradient of a loss of {loss:.4g} is not finite" if math.isfinite(loss) else f"the loss became {loss}"
    return Cause(what, _RATE.format(rate=rate))


def all_finite(parameters: Iterable[Tensor]) -> bool:
    """Whether all weights are, as far as this process has them."""
    return all(bool(local(parameter).isfinite().all()) for parameter in parameters)


def ruin(rate: float) -> Cause:
    """Why nothing can come of a network any more: a step that was finite has led to weights that are not."""
    return Cause("weights are no longer finite", _RATE.format(rate=rate))


_IMAGES = "look at these images, or leave them out (--set images=LIST)"
_RATE = (
    "most likely because the learning rate of {rate:g} is too high for this batch size or precision; try a smaller "
    "--set schedule.learning_rate, or --set precision=32-true, in a new run"
)


# --- networks that go wrong -----------------------------------------------------------------------------------------


@torch.no_grad()
def geometry(embeddings: Float[Tensor, "batch dim"]) -> dict[str, Tensor]:
    """How the embeddings of a batch lie on the sphere: scalars for the log, on their device.

    spread: 1 - |mean direction|^2, their variance: 0 where all point the same way, 1 where they cancel out.
    directions: how many they fill, (sum of the covariance's eigenvalues)^2 / sum of their squares; from 1 to D.
    """
    z = normalize(embeddings.detach().float(), dim=1)
    mean = z.mean(0)
    centred = z - mean
    small = centred @ centred.T if len(z) < z.shape[1] else centred.T @ centred
    total = centred.square().sum()
    directions = total.square() / small.square().sum().clamp(min=torch.finfo(z.dtype).tiny)
    return {"spread": 1 - mean.square().sum(), "directions": directions}


class Sign(NamedTuple):
    """A sign of a network that goes wrong. kind: its name. measure: what is looked at. limit: beyond which it is one.
    recovered: where it is none any more; a sign is below the limit if this is above it. sentence: with advice."""

    kind: str
    measure: str
    limit: float
    recovered: float
    sentence: str

    def holds(self, value: float, warned: bool) -> bool:
        bound = self.recovered if warned else self.limit
        return value < bound if self.limit < self.recovered else value > bound


# Healthy runs of ours are far from each limit: spreads of 0.98 to 1 on CIFAR-100-LT and at least 0.7 on digits, 1.7
# directions at least, transport solved to the tolerance, half of the regions in use and more.
SIGNS = (
    Sign(
        "collapse",
        "spread",
        0.05,
        0.1,
        "all embeddings point in nearly the same direction (spread {value:.3f} of 1), so the network is collapsing; "
        "try a smaller learning rate, a higher momentum of the twin, or another method",
    ),
    Sign(
        "line",
        "directions",
        1.05,
        1.1,
        "all embeddings lie along a line ({value:.2f} directions), so the network tells next to nothing apart; "
        "try a smaller learning rate or another temperature",
    ),
    Sign(
        "sinkhorn",
        "sinkhorn_excess",
        100.0,
        10.0,
        "the surrogate labels miss their shares by {value:.0f} times the tolerance, since Sinkhorn has not converged; "
        "try a larger harmonizer.max_iterations or harmonizer.sinkhorn_temperature",
    ),
    Sign(
        "regions",
        "regions_used",
        0.05,
        0.1,
        "a few regions hold nearly all images (as many as {value:.1%} of the anchors would, equally filled), so GH has "
        "nothing to even out; try fewer harmonizer.anchors or a later harmonizer.warm_up",
    ),
)


def regions_used(prior: Float[Tensor, " k"]) -> float:
    """exp(entropy) of the regions' shares, less the one that is always there, as a share of all others: 0 to 1."""
    return (float(torch.special.entr(prior).sum().exp()) - 1) / max(1, len(prior) - 1)
