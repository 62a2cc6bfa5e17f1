"""The training loop: the only place where data, method, harmonizer and optimiser meet. It names none of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import Batch
from evensphere.engine.checkpoint import KEPT, drop_checkpoints, load_checkpoint, save_checkpoint, save_encoder
from evensphere.engine.compilation import compile_networks
from evensphere.engine.display import Display
from evensphere.engine.micro_batches import encode_in_parts, normalises_by_parts, whole_again
from evensphere.engine.optim import LearningRate
from evensphere.engine.out_of_memory import advice, is_out_of_memory, let_go, parts_that_fit, untried_advice
from evensphere.engine.processes import Processes, agreed
from evensphere.engine.sharding import WholeEncoder, gathered
from evensphere.engine.stop import StopRequest, interruption
from evensphere.engine.watchdog import (
    Cause,
    FoundLate,
    StepNotFinite,
    StepSkipped,
    Watchdog,
    all_finite,
    cause_of,
    geometry,
    regions_used,
    ruin,
)
from evensphere.errors import InputError, TrainingStopped
from evensphere.gh.harmonizer import Harmonizer, Harmony, NoHarmonizer
from evensphere.methods.base import Method, Output
from evensphere.nn.norm import share_batch_norms
from evensphere.ops import collective
from evensphere.ops.draw import seed_for
from evensphere.ops.schedule import Duration, Progress
from evensphere.ops.transfer import send
from evensphere.rundir import RunDir

_CPU = torch.device("cpu")
_LEAST_TOLERANCE = 1e-4  # of Sinkhorn where a number of iterations is asked for, not a tolerance
_LOGGED_STEPS = 2000  # about how many steps of a run are written to metrics.jsonl


@dataclass
class Training:
    """All parts of a run, built and ready.

    keep_checkpoints: how many of the last ones are kept.
    snapshot_every: how often a checkpoint is kept for good, for a look at the run's past; None keeps none.
    compiled: whether torch compiles the networks.
    micro_batches: in how many parts a batch passes through the encoder (see engine/micro_batches.py).
    monitor: validation accuracies of the encoder so far, called every `evaluate_every`; None for unlabelled data.
    description: of the encoder, for the file of the best one.
    watchdog: what is to keep the run from ruin.
    """

    loader: Loader
    views: Views
    method: Method
    harmonizer: Harmonizer | NoHarmonizer
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    epochs: int
    seed: int
    evaluate_every: Duration
    checkpoint_every: Duration
    keep_checkpoints: int = KEPT
    snapshot_every: Duration | None = None
    compiled: bool = False
    micro_batches: int = 1
    monitor: Callable[[nn.Module], dict[str, float | None]] | None = None
    description: dict[str, Any] = field(default_factory=dict)
    watchdog: Watchdog = field(default_factory=Watchdog)

    @property
    def total_steps(self) -> int:
        return self.epochs * self.loader.steps_per_epoch

    @property
    def part_size(self) -> int:
        """Images of a view that pass through the encoder at once, in each process."""
        return -(-self.loader.batch_size // (self.micro_batches * collective.world_size()))

    def progress(self, step: int) -> Progress:
        return Progress(step, self.loader.steps_per_epoch, self.total_steps)

    def numbers(self, batch: Batch, device: torch.device = _CPU) -> Tensor | None:
        """Which images a batch holds, for whoever remembers something of each, on the device; None in a stream."""
        return send(batch.index, device) if self.loader.indexed else None

    def views_of(self, batch: Batch, progress: Progress, device: torch.device = _CPU) -> tuple[Tensor, ...]:
        """The views that the method is to see at a step, on the device.

        The images are queued for the device while it still works on the step before. The index stays on the CPU, where
        the views' random numbers are drawn.
        """
        images = batch.images
        sent = send(images, device) if isinstance(images, Tensor) else tuple(send(crops, device) for crops in images)
        return self.views(batch._replace(images=sent), progress.epoch, self.method.view_strength(batch.index))


class StepModule(nn.Module):
    """Method and harmonizer as one module: one forward and one backward pass for data parallelism to wrap."""

    def __init__(self, method: Method, harmonizer: Harmonizer | NoHarmonizer) -> None:
        super().__init__()
        self.method, self.harmonizer = method, harmonizer

    def forward(self, views: tuple[Tensor, ...], index: Tensor | None, progress: Progress) -> tuple[Output, Harmony]:
        output = self.method(views, index, progress)
        return output, self.harmonizer(output.embeddings, index, progress)


def fit(
    training: Training,
    run: RunDir,
    fabric: Fabric,
    console: Console | None = None,
    title: str = "training",
    processes: Processes | None = None,
) -> nn.Module:
    """Train to the end, from the run's newest checkpoint if it has one. Returns the encoder, which is whole in the
    first process.

    processes: those that train together, of which the first writes the run's files; None: this one.
    Raises TrainingStopped when too many steps could not be taken, TrainingInterrupted when a signal asked it to stop,
    InputError when a batch does not fit in memory.
    """
    processes = processes or Processes()
    if training.compiled:
        compile_networks(training.method)
    if training.micro_batches > 1:
        encode_in_parts(training.method, training.part_size)
    encoder = WholeEncoder(training.method.encoder, copied=processes.sharding != "none")
    step_module = StepModule(training.method, training.harmonizer)
    if processes.sharding == "none":  # parts are of the usual memory format
        step_module = step_module.to(memory_format=torch.channels_last)
    if processes.count > 1:
        share_batch_norms(step_module)
    step_module, training.optimizer = fabric.setup(step_module, training.optimizer)
    session = _Session(training, run, step_module, encoder, fabric, processes, console)
    first_step = _restore(session)
    if collective.largest(int(processes.first and _needs_something_to_go_back_to(session))):
        _save(session, 0)
    shown = Display(title, training.epochs, training.loader.steps_per_epoch, first_step, console)
    with StopRequest() as stop, shown as display:
        while True:
            try:
                _take_steps(session, first_step, display, stop)
                return session.whole_encoder()
            except FoundLate:
                first_step = _restore(session)
                display.say(f"A loss or gradient was not finite; going back to step {first_step}.")


class _Session(NamedTuple):
    """A run under way: its parts, ready to train; where its files go; who trains it, on what."""

    training: Training
    run: RunDir
    step_module: nn.Module
    encoder: WholeEncoder
    fabric: Fabric
    processes: Processes
    console: Console | None

    def whole_encoder(self) -> nn.Module:
        """The encoder as it is now, whole in the first process. All processes must ask at the same time."""
        return self.encoder.of(self.training.method.encoder, keep=self.processes.first)


def _restore(session: _Session) -> int:
    """Bring all parts to where the run's newest checkpoint has them; the step to go on with. The first process goes
    first: it puts damaged checkpoints aside, and cuts off the metrics that came later."""
    training, run, fabric = session.training, session.run, session.fabric
    first_step, fresh, incomplete = session.processes.in_turn(
        lambda: load_checkpoint(run, session.step_module, training.optimizer, fabric.device, session.console)
    )
    if session.processes.first:  # a run that ended between writing a checkpoint and dropping another has one too many
        drop_checkpoints(run, milestones(training), training.keep_checkpoints)
    training.watchdog.resume(run.read_metrics())
    session.step_module.train()
    if fresh:
        _take_census(training, first_step, fabric)
    elif incomplete and isinstance(training.harmonizer, Harmonizer):
        training.harmonizer.estimate_prior()
    if incomplete:
        if first_step > 0:  # where the run that this one branched off logged its own pi
            _log_population(session, training.progress(first_step - 1))
        _save(session, first_step)  # whole, since it may have to be gone back to
    return first_step


def _needs_something_to_go_back_to(session: _Session) -> bool:
    return not session.training.watchdog.looks_first(session.fabric.device) and not session.run.checkpoint_steps()


def _save(session: _Session, step: int) -> None:
    """Write a checkpoint. All processes hand in their parts, where they have some; the first one writes."""
    training, processes = session.training, session.processes
    model, optimizer = session.step_module.state_dict(), training.optimizer.state_dict()
    if processes.sharding != "none":
        model, optimizer = gathered((model, optimizer), keep=processes.first)
    if processes.first:
        save_checkpoint(session.run, step, model, optimizer, milestones(training), training.keep_checkpoints)


def _take_steps(session: _Session, first_step: int, display: Display, stop: StopRequest) -> None:
    """The steps from one on to the end of the run, with all that is due between them."""
    training, processes = session.training, session.processes
    for step, batch in training.loader.batches(first_step, training.total_steps):
        progress = training.progress(step)
        with collective.shares(len(batch.index)) as images:
            try:
                record = _take_step(training, session.step_module, batch, progress, session.fabric)
            except StepSkipped as skipped:
                _skip(session, progress, skipped.cause, display)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                let_go(error)
                display.say("There is not enough memory for this batch; looking for micro-batches that fit.")
                raise InputError(_what_fits(session, batch, progress)) from error
            else:
                _log(session, progress, record, display)
        display.step(step, images)
        best = _evaluate(session, progress, display)
        asked = agreed(stop.asked())
        if asked or best or _due(training.checkpoint_every, progress) or _is_milestone(training, step + 1):
            _check_state(session, progress)
            _save(session, step + 1)
            if processes.first:
                session.run.add_train_seconds(display.lap())
        if asked:
            raise interruption(asked, f"at step {step + 1} of {training.total_steps}", requeue=processes.first)


@torch.no_grad()
def _take_census(training: Training, step: int, fabric: Fabric) -> None:
    """Show a harmonizer that has seen nothing the epoch before `step`, through the network as it is, so that its pi
    means something from the first step on. A copy of the method looks, since BatchNorm's statistics must not move."""
    method = copy.deepcopy(training.method)
    dtype = next(method.parameters()).dtype  # in a step Fabric sees to it
    for past, batch in training.loader.batches(max(0, step - training.loader.steps_per_epoch), step):
        progress = training.progress(past)
        torch.manual_seed(seed_for(training.seed + fabric.global_rank, "census", past))  # as in a step
        views = tuple(view.to(dtype) for view in training.views_of(batch, progress, fabric.device))
        with collective.shares(len(batch.index)):
            with fabric.autocast():
                output = method(views, training.numbers(batch), progress)
            training.harmonizer.after_step(output.embeddings, training.numbers(batch, fabric.device), progress)


def _take_step(
    training: Training, step_module: nn.Module, batch: Batch, progress: Progress, fabric: Fabric
) -> dict[str, Any]:
    """One optimiser step; what it has to log, still on the device: nothing here makes the CPU wait for it.

    Raises StepSkipped, and leaves no trace, where the loss or a gradient is not finite, if the watchdog looks first.
    """
    rate = training.learning_rate(progress.epoch)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    views, numbers = training.views_of(batch, progress, fabric.device), training.numbers(batch)
    passes: list[tuple[Output, Harmony, Tensor]] = []
    weights = [weight for group in training.optimizer.param_groups for weight in group["params"]]

    def closure(image_weights: Tensor | None = None) -> Tensor:
        """Forward and backward. Some optimisers look at the loss at several points, or with other weights, in a step;
        what the last pass saw is what the step was taken with."""
        torch.manual_seed(seed_for(training.seed + fabric.global_rank, "step", progress.step))  # dropout and its like
        output, harmony = step_module(views, numbers, progress)
        loss: Tensor = output.loss + harmony.loss
        if image_weights is not None:
            assert output.per_sample is not None
            weight = send(image_weights[batch.index], loss.device)
            loss = loss + collective.mean((weight - 1) * output.per_sample)
        fabric.backward(loss)
        training.watchdog.look(loss, weights)
        passes[:] = [(output, harmony, loss)]
        return loss

    training.watchdog.remember(training.method, fabric.device)
    try:
        training.optimizer.step(closure)  # type: ignore[arg-type]  # torch's own closures return a float
    except StepNotFinite as found:
        training.watchdog.undo()
        raise StepSkipped(cause_of(found.loss, views, batch.index, weights, rate)) from found
    finally:
        training.optimizer.zero_grad()
    ((output, harmony, loss),) = passes
    numbers = training.numbers(batch, fabric.device)
    training.method.after_step(numbers, output, progress)
    training.harmonizer.after_step(output.embeddings, numbers, progress)
    shape = geometry(collective.gather(output.embeddings[0].detach())) if _is_logged(training, progress) else {}
    return {"lr": rate, "loss": loss.detach(), **output.logs, **harmony.logs, **shape}


def _skip(session: _Session, progress: Progress, cause: Cause, display: Display) -> None:
    """Write down that a step was not taken. Raises TrainingStopped where these are too many."""
    run = session.run
    event = {"event": "skipped", "step": progress.step, "epoch": progress.epoch, "reason": cause.what}
    run.append_metrics(event)
    display.say(f"Step {progress.step} (epoch {progress.epoch + 1}) was not taken: {cause.what}.")
    if too_many := session.training.watchdog.skip(progress.step):
        _stop(run, progress, cause, f"{too_many}: ")


def _check_state(session: _Session, progress: Progress) -> None:
    """Before a checkpoint is written, be sure that it is worth going back to. Raises TrainingStopped or FoundLate."""
    training = session.training
    training.watchdog.settle()
    finite = all_finite(training.method.parameters())
    if collective.largest(int(not finite)):  # of each process's part, where they have parts
        _stop(session.run, progress, ruin(training.learning_rate(progress.epoch)))


def _what_fits(session: _Session, batch: Batch, progress: Progress) -> str:
    """What to do about a step for which there is not enough memory. Nothing of this run is written any more."""
    training, fabric = session.training, session.fabric

    def attempt(parts: int) -> None:
        """All of a step but the optimiser's part."""
        whole_again(training.method)
        encode_in_parts(training.method, replace(training, micro_batches=parts).part_size)
        try:
            views, numbers = training.views_of(batch, progress, fabric.device), training.numbers(batch)
            output, harmony = session.step_module(views, numbers, progress)
            fabric.backward(output.loss + harmony.loss)
        finally:
            training.optimizer.zero_grad()

    size, parts, steps = training.loader.batch_size, training.micro_batches, session.run.checkpoint_steps()
    can_try = not training.compiled and collective.world_size() == 1  # other processes would have to try, too
    fitting = parts_that_fit(attempt, size, parts) if can_try else None
    kept = steps[-1] if steps else None
    if can_try:
        return advice(size, parts, fitting, kept)
    shared_norms = collective.world_size() > 1 and normalises_by_parts(training.method.encoder)
    in_parts = not shared_norms and session.processes.sharding == "none"
    return untried_advice(size, parts, kept, training.compiled, in_parts)


def _stop(run: RunDir, progress: Progress, cause: Cause, why: str = "") -> None:
    """End the run with a sentence. Raises TrainingStopped."""
    steps = run.checkpoint_steps()
    kept = f"the checkpoint of step {steps[-1]} is intact" if steps else "no checkpoint was written yet"
    reason = (
        f"Training stopped at step {progress.step} (epoch {progress.epoch + 1}), since "
        f"{why}{cause.what}, {cause.advice}; {kept}."
    )
    run.append_metrics({"event": "stopped", "step": progress.step, "epoch": progress.epoch, "reason": reason})
    raise TrainingStopped(reason)


def _log(session: _Session, progress: Progress, record: dict[str, Any], display: Display) -> None:
    training, run = session.training, session.run
    where = {"step": progress.step, "epoch": progress.epoch}
    harmonizer, measures = training.harmonizer, dict[str, float]()
    if _is_logged(training, progress):
        scalars = {name: value.item() if isinstance(value, Tensor) else value for name, value in record.items()}
        run.append_metrics({"event": "step", **where, **scalars})
        measures |= {name: scalars[name] for name in ("spread", "directions")}
        if isinstance(harmonizer, Harmonizer) and "sinkhorn_error" in scalars:
            measures["sinkhorn_excess"] = scalars["sinkhorn_error"] / max(harmonizer.tolerance, _LEAST_TOLERANCE)
    if isinstance(harmonizer, Harmonizer) and _log_population(session, progress):
        measures["regions_used"] = regions_used(harmonizer.prior)
    for event in training.watchdog.judge(measures, progress):
        run.append_metrics(event | where)
        if event["event"] == "warning":
            display.say(f"Warning at step {progress.step} (epoch {progress.epoch + 1}): {event['sentence']}.")


def _log_population(session: _Session, progress: Progress) -> bool:
    """Write down the pi that was recomputed after a step, if the step ends an epoch or the warm-up, which may end
    within an epoch; whether it was."""
    harmonizer = session.training.harmonizer
    if not isinstance(harmonizer, Harmonizer) or not harmonizer.recomputes_prior(progress):
        return False
    ends_warm_up = progress.step + 1 == harmonizer.warm_up.steps(progress)
    if not progress.ends_epoch and not ends_warm_up:
        return False
    where = {"step": progress.step, "epoch": progress.epoch}
    session.run.append_metrics({"event": "population", **where, "prior": harmonizer.prior.tolist()})
    return True


def _evaluate(session: _Session, progress: Progress, display: Display) -> bool:
    """Whether the encoder is the best so far, by the average of the first metric; its file is written then."""
    training, run = session.training, session.run
    if training.monitor is None or not _due(training.evaluate_every, progress):
        return False
    _check_state(session, progress)  # a step that is found to be bad later has ruined what would be looked at
    is_best, encoder = False, session.whole_encoder()
    if session.processes.first:
        with collective.alone():
            accuracies = training.monitor(encoder)
        run.append_metrics({"event": "evaluation", "step": progress.step, "epoch": progress.epoch, **accuracies})
        display.evaluation(progress.epoch + 1, accuracies)
        best = run.best_evaluation()
        is_best = best is not None and best[0] == progress.step + 1
        if is_best:
            save_encoder(run.best_file, encoder, training.description)
    session.processes.meet_first()
    return collective.largest(int(is_best)) == 1


def _is_logged(training: Training, progress: Progress) -> bool:
    return (
        progress.step % max(1, training.total_steps // _LOGGED_STEPS) == 0 or progress.step + 1 == training.total_steps
    )


def _due(every: Duration, progress: Progress) -> bool:
    """Whether something done every so often is done after this step; always after the last."""
    done = progress.step + 1
    return done % max(1, every.steps(progress)) == 0 or done == progress.total_steps


def milestones(training: Training) -> tuple[int, ...]:
    """Checkpoints that are never dropped: the end of the warm-up, from which other arms can branch, and snapshots."""
    start, steps = training.progress(0), []
    if isinstance(training.harmonizer, Harmonizer):
        steps.append(training.harmonizer.warm_up.steps(start))
    if training.snapshot_every is not None:
        interval = max(1, training.snapshot_every.steps(start))
        steps.extend(range(interval, training.total_steps + 1, interval))
    return tuple(steps)


def _is_milestone(training: Training, step: int) -> bool:
    return step in milestones(training)
