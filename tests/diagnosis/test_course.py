"""Each finding about a run's course has a log where it must fire and one where it must not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from evensphere.diagnosis.course import loss_course, run_length, sinkhorn, stopped

Event = dict[str, Any]


def steps(losses: list[float], **more: float) -> list[Event]:
    return [{"event": "step", "step": i, "epoch": i // 10, "loss": x, "ssl": x} | more for i, x in enumerate(losses)]


FALLING = [5 - i / 50 for i in range(100)]


def test_a_run_that_broke_off_says_why() -> None:
    found = stopped([*steps(FALLING), {"event": "stopped", "step": 100, "reason": "The loss became nan at step 100."}])
    assert found.level == "alarm"
    assert "nan at step 100" in found.sentence
    assert stopped(steps([1.0, math.nan, math.inf])).level == "alarm"
    assert stopped(steps(FALLING)).level == "ok"
    assert stopped([]).level == "ok"


def test_steps_that_were_left_out_are_told() -> None:
    found = stopped([*steps(FALLING), {"event": "skipped", "step": 7, "epoch": 0, "reason": "the loss was nan"}])
    assert found.level == "info"
    assert found.sentence.startswith("1 step had no finite loss")


@pytest.mark.parametrize(("total", "done", "level"), [(84, 84, "warning"), (1000, 1000, "ok"), (2000, 500, "info")])
def test_length(total: int, done: int, level: str) -> None:
    assert run_length(total, done, epochs=4).level == level


def test_the_epochs_that_are_advised_are_enough() -> None:
    assert "epochs=48" in run_length(84, 84, epochs=4).advice
    assert math.ceil(84 / 4) * 48 >= 1000


def test_a_loss_that_does_not_go_down() -> None:
    rising, falling = (loss_course(steps(losses), 10, "simclr") for losses in (FALLING[::-1], FALLING))
    assert rising is not None
    assert falling is not None
    assert (rising.level, falling.level) == ("alarm", "ok")
    assert "in the first tenth of the run, " in rising.sentence
    assert falling.numbers["first_tenth"] == pytest.approx(5 - 4.5 / 50)
    assert falling.chart is not None
    assert len(falling.chart.x) == len(falling.chart.series["loss"])
    assert loss_course(steps(FALLING[:10]), 10, "simclr") is None, "ten steps are no course"


def test_of_a_run_in_stages_the_last_is_judged() -> None:
    base = [event | {"stage": "base"} for event in steps([5 - i / 100 for i in range(100)])]
    last = [event | {"stage": "distillation", "step": 100 + event["step"]} for event in steps([1.0] * 50 + [1.1] * 50)]
    found = loss_course([*base, *last], 10, "simclr")
    assert found is not None
    assert found.level == "alarm"
    assert found.numbers["first_tenth"] == pytest.approx(1.0)
    assert "in the first tenth of the stage distillation, " in found.sentence


@pytest.mark.parametrize("method", ["moco", "dino"])
def test_a_loss_that_may_rise_is_no_alarm(method: str) -> None:
    rising, falling = (loss_course(steps(losses), 10, method) for losses in (FALLING[::-1], FALLING))
    assert rising is not None
    assert falling is not None
    assert (rising.level, falling.level, rising.advice) == ("info", "ok", "")


@pytest.mark.parametrize(
    ("errors", "level"),
    [([9e-5] * 100, "ok"), ([9e-5] * 90 + [0.02] * 10, "warning"), ([0.5] * 100, "alarm"), ([0.5] + [9e-5] * 99, "ok")],
)
def test_transport_problems_that_were_not_solved(errors: list[float], level: str) -> None:
    events = [
        {"event": "step", "step": i, "sinkhorn_error": error, "sinkhorn_iterations": 20.0}
        for i, error in enumerate(errors)
    ]
    found = sinkhorn(events, {})
    assert found is not None
    assert found.level == level


def test_a_looser_tolerance_is_the_users_to_choose() -> None:
    events = steps([1.0] * 50, sinkhorn_error=0.005, sinkhorn_iterations=3.0)
    strict, loose = sinkhorn(events, {}), sinkhorn(events, {"tolerance": 0.01})
    assert strict is not None
    assert loose is not None
    assert (strict.level, loose.level) == ("warning", "ok")
    assert sinkhorn(steps(FALLING), {}) is None, "no GH, no transport"
