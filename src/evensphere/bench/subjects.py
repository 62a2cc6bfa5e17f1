"""What is timed: the bare backbone, whole steps as the engine takes them, and their parts.

Everything is built from the recipe and set up as `engine.train.fit` does it; the steps are those of the engine. They
share one network, one optimiser and one loader, so that they differ in nothing but what their names say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.functional import one_hot

from evensphere.bench.clock import Task, large_product
from evensphere.bench.names import (
    BARE,
    CEILING,
    EXACT,
    GH_COUNTS,
    GH_LOSS,
    GH_LOSS_TRAINED,
    GH_MEMORY,
    LOADER,
    METHOD,
    PRIOR,
    SINKHORN,
    STREAMING,
    VIEWS,
    WITHOUT,
)
from evensphere.bench.operations import count_operations
from evensphere.data.augment import Views
from evensphere.data.source import Batch
from evensphere.engine.compilation import compile_networks
from evensphere.engine.train import StepModule, Training, _take_step
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer, anchor_scores
from evensphere.ops.schedule import Progress
from evensphere.ops.sinkhorn import transport_plan
from evensphere.recipes.building import build_harmonizer
from evensphere.recipes.network import projector_of
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe

_SKEW = 100  # how many times as large as the smallest region the largest is, at first

TRAINED_ITERATIONS = 30  # Sinkhorn's in trained networks: 25 in the median step of our runs (benchmarks/results/small)
_UNREACHED = 1e-30  # a tolerance that is looked at like any other, and never met


@dataclass
class Bench:
    """A recipe's parts, ready to take steps.

    recipe: with everything filled in, its population exact.
    trainings: by the name of the step; they share all but the harmonizer.
    modules: what the engine calls a step module, by the same names.
    at: where in the run the timed steps begin, which is where GH first has its full weight.
    iterations: Sinkhorn's, of every step taken with exact population.
    """

    recipe: Recipe
    trainings: dict[str, Training]
    modules: dict[str, nn.Module]
    fabric: Fabric
    at: Progress
    batches: Iterator[tuple[int, Batch]]
    iterations: list[Tensor] = field(default_factory=list)

    @property
    def exact(self) -> Training:
        return self.trainings[EXACT]

    @property
    def harmonizer(self) -> Harmonizer:
        """The one of the recipe, with exact population statistics."""
        assert isinstance(self.exact.harmonizer, Harmonizer)
        return self.exact.harmonizer

    @property
    def has_ceiling(self) -> bool:
        """Whether a large matrix product is a ceiling: in float32 some CPUs convolve faster than their library
        multiplies."""
        return self.recipe.precision == "bf16-mixed"

    def next_batch(self) -> tuple[int, Batch]:
        """(step, batch) as the loader gives it, as in `fit`."""
        return next(self.batches)

    def views(self, batch: Batch, progress: Progress) -> tuple[Tensor, ...]:
        """What the method sees of a batch, on the device."""
        return self.exact.views_of(batch, progress, self.fabric.device)

    def step(self, name: str, batch: tuple[int, Batch] | None = None) -> dict[str, Any]:
        """One whole step with its loading, or on a batch that is there."""
        step, loaded = batch or self.next_batch()
        training = self.trainings[name]
        record = _take_step(training, self.modules[name], loaded, training.progress(step), self.fabric)
        if name == EXACT and "sinkhorn_iterations" in record:
            self.iterations.append(record["sinkhorn_iterations"])
        return record


def set_up(recipe: Recipe, training: Training, fabric: Fabric) -> Bench:
    """recipe: as for Bench. training: built from it. Raises InputError where GH never has its full weight."""
    at = _first_step(training)
    streams = build_harmonizer(_streaming(recipe.harmonizer), training.method, training.loader)
    trainings = {
        WITHOUT: replace(training, harmonizer=NoHarmonizer()),
        EXACT: training,
        STREAMING: replace(training, harmonizer=streams),
    }
    if training.compiled:
        compile_networks(training.method)
    modules: dict[str, nn.Module] = {}
    for name, one in trainings.items():
        module = StepModule(one.method, one.harmonizer).to(memory_format=torch.channels_last)
        modules[name] = fabric.setup_module(module).train()
    optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(training.optimizer))
    for one in trainings.values():
        one.optimizer = optimizer
    bench = Bench(recipe, trainings, modules, fabric, at, _endless(training, at.step))
    _settle(bench)
    return bench


def _first_step(training: Training) -> Progress:
    assert isinstance(training.harmonizer, Harmonizer)
    start = training.progress(0)
    first = training.harmonizer.warm_up.steps(start) + training.harmonizer.ramp.steps(start)
    if first >= training.total_steps:
        raise InputError(
            f"GH has its full weight after {first} steps, and the run ends after {training.total_steps}; "
            "give a shorter harmonizer.warm_up or harmonizer.ramp."
        )
    return training.progress(first)


def _streaming(harmonizer: Part) -> Part:
    """The same harmonizer with streaming population statistics, whose momentum means something else."""
    options = {name: value for name, value in harmonizer.options.items() if name != "momentum"}
    return Part(harmonizer.name, **options | {"population": "streaming"})


def _endless(training: Training, first: int) -> Iterator[tuple[int, Batch]]:
    """The run's batches from a step on, over and over. An epoch's smaller last one is left out: it would be a step of
    another size."""
    loader = training.loader
    while True:
        for step, batch in loader.batches(first, training.total_steps):
            if len(batch.index) == loader.batch_size:
                yield step, batch


def _settle(bench: Bench) -> None:
    """Bring memories to where a run has them: every image seen, regions of long-tailed sizes, pi estimated."""
    images = len(bench.exact.loader.source)
    for name in (EXACT, STREAMING):
        harmonizer = bench.trainings[name].harmonizer
        assert isinstance(harmonizer, Harmonizer)
        if harmonizer.population is None:
            continue
        regions = len(harmonizer.anchors)
        shares = float(_SKEW) ** -torch.linspace(0, 1, regions)
        region = torch.searchsorted((shares / shares.sum()).cumsum(0), (torch.arange(images) + 0.5) / images)
        scores = one_hot(region.clamp(max=regions - 1), regions).to(harmonizer.prior)
        harmonizer.population.update(torch.arange(images, device=scores.device), scores, warming_up=True)
        harmonizer.estimate_prior()


# --- what is timed ----------------------------------------------------------------------------------------------------


def subjects(bench: Bench) -> dict[str, Task]:
    """Everything that is timed, by name."""
    step, batch = bench.next_batch()
    progress = bench.exact.progress(step)
    views = bench.views(batch, progress)
    tasks: dict[str, Task] = {
        BARE: bare_step(bench, views),
        WITHOUT: lambda: bench.step(WITHOUT),
        EXACT: lambda: bench.step(EXACT),
        STREAMING: lambda: bench.step(STREAMING),
        LOADER: bench.next_batch,
        VIEWS: lambda: bench.views(batch, progress),
        METHOD: _method_step(bench, batch, progress, views),
        **_harmonizer_parts(bench, batch, progress, views),
    }
    if bench.has_ceiling:
        tasks[CEILING], _ = large_product(bench.fabric.device)
    return tasks


def bare_step(bench: Bench, views: tuple[Tensor, ...]) -> Task:
    """Encoder and projector forward and backward, and the optimiser's step, on views that are ready. The loss is the
    cheapest there is: a fixed linear map. The rate is 0, so that the network stays as it is."""
    method, optimizer = bench.exact.method, bench.exact.optimizer
    network = bench.fabric.setup_module(nn.Sequential(method.encoder, projector_of(method)), move_to_device=False)
    with torch.no_grad():
        direction = torch.randn_like(network(views[0]).float()) / bench.exact.loader.batch_size

    def closure(image_weights: Tensor | None = None) -> Tensor:
        loss = torch.stack([(network(view).float() * direction).sum() for view in views]).sum()
        bench.fabric.backward(loss)
        return loss

    def step() -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        optimizer.step(closure)  # type: ignore[arg-type]  # torch's own closures return a float
        optimizer.zero_grad()

    return step


def _method_step(bench: Bench, batch: Batch, progress: Progress, views: tuple[Tensor, ...]) -> Task:
    """The engine's step without GH on views that are ready."""
    ready = replace(bench.trainings[WITHOUT], views=_Ready(views))
    return lambda: _take_step(ready, bench.modules[WITHOUT], batch, progress, bench.fabric)


class _Ready(Views):
    """Views that are there already, whatever the batch."""

    def __init__(self, views: tuple[Tensor, ...]) -> None:  # none of what the policy draws from is needed
        self.views = views

    def __call__(self, batch: Batch, epoch: int, strength: Tensor | None = None) -> tuple[Tensor, ...]:
        return self.views


def _harmonizer_parts(bench: Bench, batch: Batch, progress: Progress, views: tuple[Tensor, ...]) -> dict[str, Task]:
    harmonizer, streams = bench.harmonizer, bench.trainings[STREAMING].harmonizer
    with torch.no_grad(), bench.fabric.autocast():
        embeddings = bench.exact.method(views, batch.index, progress).embeddings
    scores = anchor_scores(embeddings, harmonizer.anchors)

    patient = bench.recipe.harmonizer.replace(max_iterations=TRAINED_ITERATIONS, tolerance=_UNREACHED)
    as_trained = build_harmonizer(patient, bench.exact.method, bench.exact.loader).to(bench.fabric.device)
    as_trained.prior = harmonizer.prior

    def loss(harmonizer: nn.Module) -> None:
        leaves = tuple(z.detach().requires_grad_() for z in embeddings)
        with bench.fabric.autocast():
            harmony = harmonizer(leaves, batch.index, progress)
        bench.fabric.backward(harmony.loss)

    parts: dict[str, Task] = {
        GH_LOSS: lambda: loss(harmonizer),
        GH_LOSS_TRAINED: lambda: loss(as_trained),
        SINKHORN: lambda: transport_plan(
            scores,
            harmonizer.prior,
            harmonizer.sinkhorn_temperature,
            harmonizer.max_iterations,
            harmonizer.tolerance,
        ),
        GH_MEMORY: lambda: harmonizer.after_step(embeddings, batch.index, progress),
        GH_COUNTS: lambda: streams.after_step(embeddings, batch.index, progress),
    }
    if harmonizer.population is not None:
        parts[PRIOR] = harmonizer.population.estimate
    return parts


# --- what is counted --------------------------------------------------------------------------------------------------


def step_operations(bench: Bench) -> tuple[int, int]:
    """Operations of one and the same step without GH and with it, loading left out. An optimiser's first step may be
    another than its later ones, so steps should have been taken before."""
    batch = bench.next_batch()
    without, exact = (count_operations(lambda name=name: bench.step(name, batch)) for name in (WITHOUT, EXACT))  # type: ignore[misc]
    return without, exact


def harmonizer_operations(bench: Bench, size: int, iterations: int) -> int:
    """Operations of GH's share of a step (loss, gradient, memory) with so many Sinkhorn iterations.

    size: times as many images, and a batch as many times as large, as the bench has.
    """
    loader, width = bench.exact.loader, bench.exact.method.embedding_dim
    batch, anchors = size * loader.batch_size, len(bench.harmonizer.anchors)
    harmonizer: Harmonizer = build(
        "harmonizer",
        bench.recipe.harmonizer.replace(anchors=anchors, max_iterations=iterations, tolerance=_UNREACHED),
        dim=width,
        num_samples=size * len(loader.source),
        steps_per_epoch=loader.steps_per_epoch,
    )
    harmonizer.to(bench.fabric.device)
    index = torch.arange(batch)
    embeddings = [torch.randn(batch, width, device=bench.fabric.device, requires_grad=True) for _ in range(2)]

    def share() -> None:
        with bench.fabric.autocast():
            harmony = harmonizer(embeddings, index, bench.at)
        torch.autograd.grad(harmony.loss, embeddings)
        harmonizer.after_step(embeddings, index, bench.at)

    share()  # memories move to the device at their first use
    return count_operations(share)
