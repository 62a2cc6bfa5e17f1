"""Subjects take turns, and the number of rounds follows from the time there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from evensphere.bench.clock import interleaved, seconds_of

CPU = torch.device("cpu")


class Time:
    """A clock that only tasks move."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[str]()

    def task(self, name: str, *seconds: float) -> Callable[[], None]:
        """A task that takes so long the first time, the second ..., and then as long as the last."""
        left = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr("evensphere.bench.clock.time.perf_counter", lambda: fake.now)
    return fake


def test_every_round_has_every_subject_in_turn(time: Time) -> None:
    tasks = {"A": time.task("A", 9.0, 1.0), "B": time.task("B", 9.0, 2.0), "C": time.task("C", 9.0, 3.0)}
    told: list[tuple[int, int]] = []
    measured = interleaved(tasks, CPU, 1000.0, 4, lambda done, total: told.append((done, total)))
    assert "".join(time.calls) == "AABBCC" + 4 * "ABC", "each is warmed up first"
    assert measured == {"A": [1.0] * 4, "B": [2.0] * 4, "C": [3.0] * 4}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_short_tasks_are_called_often_and_the_time_is_that_of_one_call(time: Time) -> None:
    measured = interleaved({"task": time.task("task", 1.0, 0.002)}, CPU, 1000.0, 3)
    assert len(time.calls) == 2 + 3 * 15, "30 ms each time"
    assert measured["task"] == pytest.approx([0.002] * 3)
    assert seconds_of(time.task("task", 1.0, 2.0, 3.0), 3, CPU) == pytest.approx(2.0)


@pytest.mark.parametrize(("seconds", "rounds"), [(0.001, 5), (8.0, 6), (52.0, 50), (5000.0, 1000)])
def test_the_time_decides_how_many_rounds_there_are(time: Time, seconds: float, rounds: int) -> None:
    """A second a call, two of them for the warm-up."""
    assert len(interleaved({"task": time.task("task", 1.0)}, CPU, seconds)["task"]) == rounds


def test_rounds_that_become_slow_are_fewer(time: Time) -> None:
    task = time.task("task", *[1.0] * 12, 10.0)
    assert len(interleaved({"task": task}, CPU, 52.0)["task"]) == 14  # 10 of a second and 4 of 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for() -> None:
    matrix = torch.randn(8192, 8192, device="cuda")
    matrix @ matrix
    seconds = seconds_of(lambda: matrix @ matrix, 4, torch.device("cuda"))
    assert seconds > 2 * 8192**3 / 1e15, "faster than any GPU: only the launch was timed"
