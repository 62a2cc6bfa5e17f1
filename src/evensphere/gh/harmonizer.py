"""Geometric Harmonization (Zhou et al., NeurIPS 2023): category-level evenness on top of any self-supervised method.

B images in the batch, V full views, D width of the embeddings, K anchors, N images in the data set.

    scores            s = M z, scaled to unit length over the K anchors           (the authors' code, not in the text)
    prediction        p = softmax(s / prediction_temperature)
    population        pi = the share of the data in each anchor's region          gh/population
    surrogate labels  q = transport plan of s with column shares pi, no gradient  ops/sinkhorn
    loss              each view's q supervises the other views' p:  - sum over views of mean_i sum_k q_ik log p_ik

In a loop of your own:

    harmonizer = Harmonizer(dim=128, num_samples=len(dataset), warm_up="100 epochs")
    ...
    loss = loss + harmonizer((z1, z2), index).loss

(docs/integrations.md: which embeddings to hand over, and how to go about it in Lightly, Lightning, Accelerate ...)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.population import (
    MOMENTUM,
    STREAMING_MOMENTUM,
    ExactPopulation,
    Population,
    StreamingPopulation,
)
from evensphere.nn.memory import Queue
from evensphere.ops import collective
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Duration, Progress, ramp_weight
from evensphere.ops.sinkhorn import Pace, shared_plan
from evensphere.values import check_whole

Embeddings = Sequence[Float[Tensor, "batch dim"]]


class Harmony(NamedTuple):
    """What the harmonizer adds to a step: a loss (0 in the warm-up) and scalars worth logging."""

    loss: Float[Tensor, ""]
    logs: dict[str, Tensor]


def harmonization_loss(
    z1: Float[Tensor, "batch dim"],
    z2: Float[Tensor, "batch dim"],
    anchors: Float[Tensor, "k dim"],
    prior: Float[Tensor, " k"] | None,
    prediction_temperature: float = 0.1,
    sinkhorn_temperature: float = 0.05,
    max_iterations: int = 300,
    tolerance: float = 0.0,
) -> Float[Tensor, ""]:
    """L_GH of one batch (paper, equation 5), both directions summed.

    z1, z2: projector outputs of the two views; their length does not matter. prior: pi, None for equal shares.
    """
    scores = anchor_scores((z1, z2), anchors)
    plan = shared_plan(scores, prior, sinkhorn_temperature, max_iterations, tolerance)
    return _both_directions(scores, plan.assignment, prediction_temperature)


def anchor_scores(embeddings: Embeddings, anchors: Float[Tensor, "k dim"]) -> Float[Tensor, "views batch k"]:
    """How far each embedding points along each anchor, scaled to unit length over the anchors; float32 or float64."""
    z = real(torch.stack(tuple(embeddings)))
    with no_autocast(z):
        return normalize(z @ anchors.to(z).T, dim=-1)


def _both_directions(
    scores: Float[Tensor, "views batch k"], labels: Float[Tensor, "views batch k"], temperature: float
) -> Float[Tensor, ""]:
    """Each view's prediction against the other views' labels, scaled so that two views give the paper's sum of two
    directions."""
    return 2 * collective.mean(cross_view_entropy(scores, labels, temperature))


def auto_num_anchors(num_samples: int | None, dim: int) -> int:
    """K for data of this size: the paper's 100 where it fits, at least 50 images to a region.

    A region that holds a handful of images has a share that is mostly noise. K stays within the D+1 directions that can
    be equally far from each other. The batch does not bound it: with batches of 16, a quarter of the batch was far
    worse than the number that suits the data (docs/choosing.md).
    """
    bounds = [100, dim + 1]
    if num_samples is not None:
        bounds.append(num_samples // 50)
    return max(2, min(bounds))


class Harmonizer(nn.Module):
    """The paper's second loss, with its anchors, its population statistics and its schedule.

    dim: width D of the embeddings (projector outputs).
    num_samples: images N in the data set; None needs population="streaming".
    anchors: K, or "auto" (see `auto_num_anchors`), or a tensor [K, D] of unit vectors.
    prior: "population" (pi, estimated), "uniform" (equal shares) or a tensor [K] that stays fixed.
    weight: of the loss, after the ramp.
    warm_up, ramp: durations ('10 epochs', '200 steps', 0.5): before the loss acts, and until it has full weight
        (1/n, 2/n, ... climbing per epoch, or per step when given in steps). The paper: half of the run, and
        10 epochs (30 on the large sets).
    prediction_temperature, sinkhorn_temperature: gamma and epsilon, > 0.
    population: "exact" (an N x K memory, needs the index) or "streaming" (K numbers, no index).
    momentum: of the exact memory per visit of an image, before and after the warm-up; of the streaming average per
        step.
    update_every: how often pi is recomputed after the warm-up: after every batch of every n-th epoch (the paper: 20),
        or every n-th step.
    floor: images added to every region's count (the authors' large-scale script: 100). Where num_samples is unknown, in
        images of an average region, so that 1 adds as much again as all images.
    max_iterations, tolerance: of Sinkhorn (see ops.sinkhorn).
    queue: scores of the latest images that take part in every batch's transport problem, for batches too small to
        resemble pi (SwAV's remedy for small batches; the paper has none). 0 uses the batch alone.
    steps_per_epoch: in a foreign loop, what an epoch is; derived from num_samples and the first batch if not given.
    total_steps: in a foreign loop, the length of the run, which durations that are shares of it need. A step there is a
        call in training mode, so micro-batches whose gradients are added up are steps of their own.
    memory: the precision of the exact memory; "bfloat16" halves it (see nn.memory.IndexedEma).
    sample_weights: [N], >= 0, what each image counts in pi; None counts 1 for each. Copies of an image, m of them at
        weight 1/m, count as one. They are no state: give them again when resuming. The loss itself is not weighted.

    Raises InputError for a value out of range.

    In the training engine a step is `forward(embeddings, index, progress)`, which changes nothing, and `after_step`
    once the optimiser has stepped. In a foreign loop leave `progress` out: the harmonizer counts steps itself and, in
    training mode, commits each forward.
    """

    anchors: Float[Tensor, "k dim"]
    prior: Float[Tensor, " k"]

    def __init__(
        self,
        dim: int,
        num_samples: int | None = None,
        anchors: int | Literal["auto"] | Tensor = 100,
        prior: Literal["population", "uniform"] | Tensor = "population",
        weight: float = 1.0,
        warm_up: Duration | str | float = 0.5,
        ramp: Duration | str | float = "10 epochs",
        prediction_temperature: float = 0.1,
        sinkhorn_temperature: float = 0.05,
        population: Literal["exact", "streaming"] = "exact",
        momentum: tuple[float, float] | float | None = None,
        update_every: Duration | str | float = "20 epochs",
        floor: float = 0.0,
        max_iterations: int = 300,
        tolerance: float = 1e-4,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
        memory: Literal["float32", "bfloat16"] = "float32",
        queue: int = 0,
        seed: int = 0,
        sample_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        if isinstance(anchors, str) and anchors == "auto":
            anchors = auto_num_anchors(num_samples, dim)
        self.register_buffer("anchors", _checked_anchors(anchors, dim, seed))
        num_anchors = len(self.anchors)
        self.register_buffer("prior", _initial_prior(prior, num_anchors))
        weights = _checked_weights(sample_weights, num_samples)
        self.population = _population(prior, population, num_samples, num_anchors, momentum, floor, memory, weights)
        if queue < 0:
            raise InputError(f"queue = {queue} was given; it must be 0 (none) or a number of images.")
        self.past = Queue(queue, num_anchors) if queue else None
        self.weight = _above_zero("weight", weight)
        self.warm_up, self.ramp = Duration.parse(warm_up), Duration.parse(ramp)
        self.update_every = Duration.parse(update_every)
        self.prediction_temperature = _above_zero("prediction_temperature", prediction_temperature)
        self.sinkhorn_temperature = _above_zero("sinkhorn_temperature", sinkhorn_temperature)
        check_whole("max_iterations", max_iterations, 1, 1_000_000)
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.pace = Pace(self.max_iterations, tolerance)
        self._estimated = False  # whether pi has been, at the warm-up's end or since
        self._latest_error: Tensor | None = None  # of the transport problem of a step that may yet be taken
        self.num_samples, self.steps_per_epoch, self.total_steps = num_samples, steps_per_epoch, total_steps
        self.steps_taken = 0  # counted only in a foreign loop

    # --- one step -----------------------------------------------------------------------------------------------------

    def forward(
        self, embeddings: Embeddings, index: Int64[Tensor, " batch"] | None = None, progress: Progress | None = None
    ) -> Harmony:
        """The weighted loss of a batch.

        embeddings: projector outputs of each full view, with gradient, V >= 2 of them.
        index: each image's number in the data set (exact population statistics only).
        progress: where the run is; None lets the harmonizer count.
        """
        if len(embeddings) < 2:
            raise InputError(
                f"{len(embeddings)} view was given; harmonization compares at least 2 views of each image."
            )
        counting = progress is None
        progress = progress or self._own_progress(embeddings[0], index)
        harmony = self._harmony(embeddings, ramp_weight(progress, self.warm_up, self.ramp) * self.weight)
        if counting and self.training:
            self.after_step(embeddings, index, progress)
            self.steps_taken += 1
        return harmony

    def after_step(self, embeddings: Embeddings, index: Int64[Tensor, " batch"] | None, progress: Progress) -> None:
        """Take a batch whose step was taken into the population statistics, which only view 1 feeds, and the queue."""
        if self._latest_error is not None:
            self.pace.record(self._latest_error)
            self._latest_error = None
        if self.past is not None:
            for scores in anchor_scores([z.detach() for z in embeddings], self.anchors):
                self.past.push(scores)  # a view at a time: the same order in one process as in several
        if self.population is None:
            return
        warm_up = self.warm_up.steps(progress)
        scores = anchor_scores((embeddings[0].detach(),), self.anchors)[0]
        index = None if index is None else collective.gather(index.to(scores.device, non_blocking=True))
        self.population.update(index, collective.gather(scores), warming_up=progress.step < warm_up)
        # the last step of a warm-up, where there is one, was not taken
        overdue = 0 < warm_up <= progress.step and not self._estimated
        if self.recomputes_prior(progress) or overdue:
            self.estimate_prior()

    def estimate_prior(self) -> None:
        """Make pi anew of what the population statistics hold."""
        if self.population is not None:
            self.prior = self.population.estimate().to(self.prior)
            self._estimated = True

    def recomputes_prior(self, progress: Progress) -> bool:
        """Whether pi is recomputed after this step: the warm-up's last, then at every `update_every`.

        Without a warm-up the first epoch does what its last step would have done, so that pi is more than a guess.
        """
        if self.population is None:
            return False
        warm_up = self.warm_up.steps(progress)
        since = progress.step - warm_up
        if since < 0:
            return since == -1
        if self.update_every.unit == "steps":
            return (since + 1) % max(1, round(self.update_every.amount)) == 0
        epochs_since = since // progress.steps_per_epoch
        first_without_warm_up = warm_up == 0 and epochs_since == 0
        return first_without_warm_up or (epochs_since + 1) % max(1, self.update_every.epochs(progress)) == 0

    def _harmony(self, embeddings: Embeddings, weight: float) -> Harmony:
        zero = embeddings[0].new_zeros((), dtype=torch.float32)
        if weight == 0:
            return Harmony(zero, {"gh": zero, "gh_weight": zero})
        scores = anchor_scores(embeddings, self.anchors)
        past = None if self.past is None else self.past.pushed(scores[0])
        limits = self.pace.limits(scores.device)
        plan = shared_plan(scores, self.prior, self.sinkhorn_temperature, *limits, past)
        self._latest_error = plan.marginal_error
        loss = _both_directions(scores, plan.assignment, self.prediction_temperature)
        logs = {
            "gh": loss.detach(),
            "gh_weight": zero + weight,
            "sinkhorn_iterations": zero + plan.iterations,
            "sinkhorn_error": plan.marginal_error.float(),
        }
        return Harmony(loss * weight, logs)

    def _own_progress(self, embeddings: Float[Tensor, "batch dim"], index: Int64[Tensor, " batch"] | None) -> Progress:
        """In a foreign loop: the steps counted here, and what an epoch is if anything is measured in epochs."""
        if self.prior.device != embeddings.device:
            self.to(embeddings.device)  # for whoever forgot
        if self.steps_taken == 0 and index is not None:
            self._check_that_it_numbers_images(index)
        steps_per_epoch = self.steps_per_epoch
        if steps_per_epoch is None and self.num_samples is not None:
            steps_per_epoch = math.ceil(self.num_samples / (len(embeddings) * collective.world_size()))
            if self.training:  # evaluation has batches of its own, and changes nothing
                self.steps_per_epoch = steps_per_epoch
        if steps_per_epoch is None:
            for name in ("warm_up", "ramp", "update_every"):
                if getattr(self, name).unit == "epochs":
                    raise InputError(
                        f"{name} is {getattr(self, name)}, but nobody said what an epoch is; "
                        "give it in steps, or pass steps_per_epoch."
                    )
        return Progress(self.steps_taken, steps_per_epoch or 1, self.total_steps)

    def _check_that_it_numbers_images(self, index: Int64[Tensor, " batch"]) -> None:
        """Classes where images' numbers should be would be believed, and the memory would hold one row for each class.
        Asked once: a GPU has to be waited for."""
        different, most = len(index.unique()), min(len(index), self.num_samples or len(index))
        if most >= 8 and different < most / 2:
            raise InputError(
                f"An index with {different} different numbers for {len(index)} images was given; it must say which "
                "image of the data set each one is, not its class (see evensphere.WithIndex)."
            )

    # --- state: the memory is saved with the module, but is no buffer -------------------------------------------------

    def get_extra_state(self) -> dict[str, object]:
        population = None if self.population is None else self.population.state_dict()
        return {
            "population": population,
            "steps_taken": self.steps_taken,
            "steps_per_epoch": self.steps_per_epoch,
            "estimated": self._estimated,
            "pace": self.pace.state_dict(),
        }

    def set_extra_state(self, state: dict[str, object]) -> None:
        self.steps_taken = state["steps_taken"]  # type: ignore[assignment]
        self.steps_per_epoch = state["steps_per_epoch"]  # type: ignore[assignment]
        if self.population is not None:
            self.population.load_state_dict(state["population"])  # type: ignore[arg-type]
        self._estimated = bool(state.get("estimated", True))  # checkpoints of version 0.1 have neither
        self._latest_error = None  # of a step after the one that is gone back to
        if "pace" in state:
            self.pace.load_state_dict(state["pace"])  # type: ignore[arg-type]
        else:  # a branch's first checkpoint has none, and a run that goes back to it has set a pace since
            self.pace = Pace(self.max_iterations, self.tolerance, self.pace.waits)


class NoHarmonizer(nn.Module):
    """The absence of a harmonizer: no loss, no state, no options."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, embeddings: Embeddings, index: Tensor | None = None, progress: Progress | None = None) -> Harmony:
        return Harmony(embeddings[0].new_zeros((), dtype=torch.float32), {})

    def after_step(self, embeddings: Embeddings, index: Tensor | None, progress: Progress) -> None:
        pass

    def recomputes_prior(self, progress: Progress) -> bool:
        return False


# --- the constructor's checks -----------------------------------------------------------------------------------------


def _above_zero(name: str, value: float) -> float:
    if not value > 0:
        raise InputError(f"{name} = {value} was given; it must be above 0.")
    return value


def _checked_anchors(anchors: object, dim: int, seed: int) -> Tensor:
    if isinstance(anchors, Tensor):
        if anchors.ndim != 2 or anchors.shape[1] != dim or len(anchors) < 2:
            raise InputError(
                f"Anchors of shape {tuple(anchors.shape)} were given; give [K >= 2, D = {dim}] unit vectors."
            )
        return normalize(anchors.detach().float(), dim=1)
    if isinstance(anchors, bool) or not isinstance(anchors, int):
        raise InputError(f"anchors = {anchors!r} was given; give a number, 'auto' or a tensor [K, D].")
    return geometric_uniform(anchors, dim, seed)


def _initial_prior(prior: object, num_anchors: int) -> Tensor:
    if isinstance(prior, Tensor):
        if prior.shape != (num_anchors,) or (prior < 0).any() or not 0 < prior.sum() < torch.inf:
            raise InputError(f"A prior of shape {tuple(prior.shape)} was given; give {num_anchors} shares >= 0.")
        return prior.float() / prior.sum()
    if prior not in ("population", "uniform"):
        raise InputError(f"prior = {prior!r} was given; give 'population', 'uniform' or a tensor [K].")
    return torch.full((num_anchors,), 1 / num_anchors)


def _population(
    prior: object,
    kind: str,
    num_samples: int | None,
    num_anchors: int,
    momentum: tuple[float, float] | float | None,
    floor: float,
    memory: str,
    sample_weights: Tensor | None,
) -> Population | None:
    if not (isinstance(prior, str) and prior == "population"):
        return None
    averaging = () if momentum is None else (momentum,) if isinstance(momentum, int | float) else tuple(momentum)
    if not floor >= 0 or not all(0 <= one <= 1 for one in averaging):
        raise InputError(f"momentum = {momentum}, floor = {floor} were given; give momentum in [0, 1] and floor >= 0.")
    if kind == "streaming":
        if len(averaging) > 1:
            raise InputError(f"momentum = {momentum} was given; the streaming population takes one number (per step).")
        share = floor if num_samples is None else floor * num_anchors / num_samples
        return StreamingPopulation(
            num_anchors, averaging[0] if averaging else STREAMING_MOMENTUM, share, sample_weights
        )
    if kind != "exact":
        raise InputError(f"population = {kind!r} was given; give 'exact' or 'streaming'.")
    if num_samples is None:
        raise InputError("Exact population statistics need num_samples; give it, or population='streaming'.")
    before, after = 2 * averaging if len(averaging) == 1 else averaging or MOMENTUM
    if memory not in ("float32", "bfloat16"):
        raise InputError(f"memory = {memory!r} was given; give 'float32' or 'bfloat16'.")
    dtype: torch.dtype = getattr(torch, memory)
    return ExactPopulation(num_samples, num_anchors, (before, after), floor, dtype, sample_weights)


def _checked_weights(weights: Tensor | None, num_samples: int | None) -> Tensor | None:
    if weights is None:
        return None
    weights = weights.detach().float()
    if weights.ndim != 1 or num_samples not in (None, len(weights)):
        wanted = "N" if num_samples is None else f"N = {num_samples}"
        raise InputError(f"sample_weights of shape {tuple(weights.shape)} were given; give [{wanted}], one per image.")
    if not (weights.isfinite() & (weights >= 0)).all() or not weights.sum() > 0:
        raise InputError("sample_weights that are negative, infinite or all 0 were given; give numbers >= 0.")
    return weights
