"""How a run went, from what it logged: whether it broke off, was long enough, learnt, and solved GH's transport."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from evensphere.diagnosis.finding import Chart, Finding, Question
from evensphere.report.record import number
from evensphere.report.wording import PERCENT, count, three_figures

Event = Mapping[str, Any]

ENOUGH_STEPS = 1_000
_TOLERANCE = 1e-4  # of Sinkhorn, where the recipe says nothing
_NOT_SOLVED = 10  # times the tolerance
_MOST_POINTS = 100  # of a curve
_RISING = ("moco", "dino")  # methods whose loss may rise while they learn (docs/log.md)


def stopped(events: Sequence[Event]) -> Finding:
    """Whether training ended before its last step because of what it saw."""
    reasons = [event.get("reason") or "no reason was logged" for event in events if event["event"] == "stopped"]
    losses = [event["loss"] for event in events if event["event"] == "step" and "loss" in event]
    broken = sum(number(loss) is None for loss in losses)
    skipped = sum(event["event"] == "skipped" for event in events)
    numbers = {"stopped": len(reasons), "losses": len(losses), "not_finite": broken, "skipped": skipped}
    evidence = (
        "A step whose loss or gradient is not finite is not taken; five in a row, or a hundred in all, stop the run."
    )
    asked = Question("stopped", "Did training break off?", numbers, evidence)
    if reasons or broken:
        why = reasons[-1] if reasons else f"{broken:,} of {len(losses):,} logged losses are not finite."
        return asked.answer(
            "alarm",
            f"Training broke off: {why}",
            "Start again with half the learning rate (--set schedule.learning_rate=...), or with --set "
            "precision=32-true.",
        )
    if skipped:
        return asked.answer("info", f"{count(skipped, 'step')} had no finite loss or gradient and left no trace.")
    return asked.answer("ok", "Every logged loss is finite.")


def run_length(total_steps: int, done: int, epochs: int) -> Finding:
    """Whether the run is long enough to say anything."""
    numbers = {"steps": total_steps, "done": done, "epochs": epochs}
    wanted = math.ceil(epochs * ENOUGH_STEPS / max(1, total_steps))
    evidence = (
        "Measured (docs/log.md): after 84 steps on 2,640 photos the encoder was worse than an untrained one (kNN "
        "26.9 against 28.8 %); CIFAR-100-LT still gained after 2,000 steps, and GH's own results are from 20,000 "
        "and more."
    )
    asked = Question("run-length", "Was it long enough?", numbers, evidence)
    if done < total_steps:
        reached = f"The run is at step {done:,} of {total_steps:,}; what follows speaks of the network as it is now."
        return asked.answer("info", reached, "Let it end (train ... --resume).")
    if total_steps < ENOUGH_STEPS:
        return asked.answer(
            "warning",
            f"The run took {count(total_steps, 'step')}, which is too few to judge anything by.",
            f"Train for at least {ENOUGH_STEPS:,} steps: --set epochs={wanted} or more on these images.",
        )
    return asked.answer("ok", f"The run took {count(total_steps, 'step')}.")


def loss_course(events: Sequence[Event], steps_per_epoch: int, method: str) -> Finding | None:
    """Whether the method's own loss went down: its last tenth against its first; of a run in stages, those of the last
    stage. method: its name in the recipe."""
    steps = [event for event in events if event["event"] == "step" and _is_number(event, "ssl")]
    stage = steps[-1].get("stage") if steps else None  # the last: the loss of one is not that of another
    points = [(event["step"], event["ssl"]) for event in steps if event.get("stage") == stage]
    if len(points) < 20:
        return None
    tenth = len(points) // 10
    first, last = (fmean(loss for _, loss in part) for part in (points[:tenth], points[-tenth:]))
    chart = Chart(
        "lines", "The method's own loss.", *_curve(points, steps_per_epoch), {"loss": _thinned([y for _, y in points])}
    )
    numbers = {"first_tenth": first, "last_tenth": last}
    evidence = "The method's own loss only; GH's has a floor of its own. How far down it goes says nothing by itself."
    asked = Question("loss", "Did it learn?", numbers, evidence, chart)
    whole = "run" if stage is None else f"stage {stage}"
    went = f"The loss went from {three_figures(first)} to {three_figures(last)}"
    if last >= first and method in _RISING and stage is None:
        return asked.answer("info", f"{went}, which says nothing: the loss of {method} may rise while it learns.")
    if last >= first:
        return asked.answer(
            "alarm",
            f"The loss did not go down: {three_figures(first)} in the first tenth of the {whole}, "
            f"{three_figures(last)} in the last.",
            "Try a third of the learning rate (--set schedule.learning_rate=...), and look at a few views: are the "
            "images still recognisable?",
        )
    return asked.answer("ok", f"{went}.")


def _curve(points: Sequence[tuple[int, float]], steps_per_epoch: int) -> tuple[list[float | str], str, str]:
    return [step / steps_per_epoch for step in _thinned([step for step, _ in points])], "epoch", "loss"


def _thinned(values: Sequence[Any]) -> list[Any]:
    return list(values[:: math.ceil(len(values) / _MOST_POINTS)])


def sinkhorn(events: Sequence[Event], harmonizer: Mapping[str, Any]) -> Finding | None:
    """Whether the transport problems behind GH's labels were solved. harmonizer: its options in the recipe."""
    solved = [event for event in events if event["event"] == "step" and _is_number(event, "sinkhorn_error")]
    if not solved:
        return None
    tolerance = float(harmonizer.get("tolerance", _TOLERANCE))
    errors = [float(event["sinkhorn_error"]) for event in solved]
    iterations = median(float(event["sinkhorn_iterations"]) for event in solved)
    loose = 100 * sum(error > _NOT_SOLVED * max(tolerance, 1e-6) for error in errors) / len(errors)
    numbers = {
        "steps": len(errors),
        "median_error": median(errors),
        "largest_error": max(errors),
        "median_iterations": iterations,
        "unsolved_percent": loose,
    }
    evidence = (
        "The error is how far the labels' shares are from pi, summed over the regions (0 to 2). At 1e-4 labels "
        "differ from those of 300 iterations by a thousandth at most (docs/log.md)."
    )
    asked = Question("sinkhorn", "Were GH's labels computed to the end?", numbers, evidence)
    if loose > 5:
        return asked.answer(
            "alarm" if median(errors) > 0.1 else "warning",
            f"In {loose:.0f}{PERCENT} of the steps Sinkhorn ended before it had converged (median error "
            f"{three_figures(median(errors))}).",
            "Allow more iterations (--set harmonizer.max_iterations=1000), or a higher temperature "
            "(--set harmonizer.sinkhorn_temperature=0.1).",
        )
    return asked.answer(
        "ok",
        f"Sinkhorn converged, in {iterations:.0f} iterations in the median (error {three_figures(median(errors))}).",
    )


def _is_number(event: Event, name: str) -> bool:
    return number(event.get(name)) is not None
