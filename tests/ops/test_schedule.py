"""Learning rates and the ramp equal the reference code's, epoch by epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evensphere.engine.optim import plain, two_stage
from evensphere.errors import InputError
from evensphere.ops.schedule import (
    Duration,
    Progress,
    Temperature,
    plain_learning_rate,
    ramp_weight,
    two_stage_learning_rate,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def test_learning_rates_equal_the_protocol() -> None:
    golden = np.load(GOLDEN / "protocol.npz")
    epochs = range(1000)
    np.testing.assert_allclose([plain_learning_rate(e, 1000) for e in epochs], golden["lr_plain"], rtol=1e-12)
    np.testing.assert_allclose(
        [two_stage_learning_rate(e, 1000, stage_change=500) for e in epochs], golden["lr_two_stage"], rtol=1e-12
    )


def test_the_schedules_of_recipes_are_the_same_functions() -> None:
    golden = np.load(GOLDEN / "protocol.npz")
    rate, two_stage_rate = plain(1000, warm_up=0.01), two_stage(1000, warm_up="10 epochs", stage_change=0.5)
    np.testing.assert_allclose([rate(e) for e in range(1000)], golden["lr_plain"], rtol=1e-12)
    np.testing.assert_allclose([two_stage_rate(e) for e in range(1000)], golden["lr_two_stage"], rtol=1e-12)


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_short_runs_have_a_rate_above_zero_in_every_epoch(epochs: int) -> None:
    for rate in (plain(epochs, warm_up=0.05), two_stage(epochs, warm_up=0.05)):
        assert all(0 < rate(epoch) <= 0.5 for epoch in range(epochs))


@pytest.mark.parametrize(("key", "stage", "ramp"), [("cifar", 500, "10 epochs"), ("large", 400, "30 epochs")])
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_the_ramp_equals_the_reference_in_every_epoch(key: str, stage: int, ramp: str, steps_per_epoch: int) -> None:
    golden = np.load(GOLDEN / "ramp.npz")[f"weight_{key}_by_epoch_1based"]
    warm_up, length = Duration(stage, "epochs"), Duration.parse(ramp)
    for epoch, expected in enumerate(golden):
        for step in {epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1}:
            progress = Progress(step, steps_per_epoch, len(golden) * steps_per_epoch)
            assert ramp_weight(progress, warm_up, length) == pytest.approx(expected, abs=1e-12)


def test_a_ramp_in_steps_climbs_every_step() -> None:
    weights = [ramp_weight(Progress(step), Duration(3, "steps"), Duration(4, "steps")) for step in range(9)]
    assert weights == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_no_warm_up_and_no_ramp_is_full_weight_at_once() -> None:
    assert ramp_weight(Progress(0), Duration(0, "steps"), Duration(0, "steps")) == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("10 epochs", Duration(10, "epochs")),
        ("1 epoch", Duration(1, "epochs")),
        ("200 steps", Duration(200, "steps")),
        (200, Duration(200, "steps")),
        ("200", Duration(200, "steps")),
        (0.5, Duration(0.5, "fraction")),
        ("0.5", Duration(0.5, "fraction")),
    ],
)
def test_durations_are_read(given: str | float, expected: Duration) -> None:
    assert Duration.parse(given) == expected
    assert Duration.parse(str(expected)) == expected


@pytest.mark.parametrize("given", ["soon", "10 minutes", -1, 1.5, -0.5, True, "-3 epochs", ""])
def test_other_durations_are_refused(given: str | float) -> None:
    with pytest.raises(InputError, match="not a duration"):
        Duration.parse(given)


def test_durations_become_steps() -> None:
    progress = Progress(0, steps_per_epoch=7, total_steps=7 * 9)
    assert Duration.parse("3 epochs").steps(progress) == 21
    assert Duration.parse(0.5).steps(progress) == 28, "a share of a run ends with an epoch"
    assert Duration.parse(0.5).steps(Progress(0, 1000, 1000)) == 500, "unless the run is one"
    with pytest.raises(InputError, match="unknown length"):
        Duration.parse(0.5).steps(Progress(0))


def test_temperatures_are_read() -> None:
    assert Temperature.parse("1.0 to 0.1 every 400 epochs") == Temperature(1.0, 0.1, Duration(400, "epochs"))
    assert Temperature.parse(0.2)(Progress(123, 10)) == 0.2, "a number is constant"
    assert Temperature.parse(temperature := Temperature(1, 0.1)) is temperature


@pytest.mark.parametrize(
    "given", [0.0, -1.0, "cold", "1.0 to 0.0 every 4 epochs", "1 to 2 every day", "1 to 2 every 0"]
)
def test_other_temperatures_are_refused(given: str | float) -> None:
    with pytest.raises(InputError):
        Temperature.parse(given)


def test_temperatures_move_with_the_unit_of_their_period() -> None:
    by_epoch = Temperature.parse("3.0 to 1.0 every 4 epochs")
    assert [by_epoch(Progress(step, 2)) for step in range(10)] == pytest.approx([3, 3, 2, 2, 1, 1, 2, 2, 3, 3])
    by_step = Temperature.parse("3.0 to 1.0 every 4 steps")
    assert [by_step(Progress(step, 2)) for step in range(5)] == pytest.approx([3, 2, 1, 2, 3])
    share = Temperature.parse("3.0 to 1.0 every 0.5")
    assert [share(Progress(step, 1, 8)) for step in range(5)] == pytest.approx([3, 2, 1, 2, 3])
