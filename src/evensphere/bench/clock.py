"""Time, taken so that it can be compared: every subject in every round, A B C A B C ..., after a warm-up.

What a machine does beside us, and how warm it is, then falls on all subjects alike, and a ratio of two of them is taken
within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

Task = Callable[[], object]
Rounds = Mapping[str, list[float]]  # seconds of one call, a number for each round

LEAST_ROUNDS = 5
_MOST_ROUNDS = 1000
_LEAST_SECONDS = {"cpu": 0.03}  # of one measurement; shorter tasks are repeated within it
_LEAST_ELSEWHERE = 0.2  # where the queue of kernels has to fill first
_MOST_REPEATS = 50
_CEILING_SIDE = {"cuda": 8192, "cpu": 2048}  # of square matrices


def interleaved(
    tasks: Mapping[str, Task],
    device: torch.device,
    seconds: float,
    rounds: int | None = None,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, list[float]]:
    """Time tasks in turn. Seconds of one call of each, a number for every round.

    seconds: for all of it, warm-up included; decides how many rounds there are, at least LEAST_ROUNDS.
    rounds: how many, whatever time they take. on_round: told (rounds done, rounds in all).
    """
    begin = time.perf_counter()
    repeats = {name: _repeats(task, device) for name, task in tasks.items()}
    measured: dict[str, list[float]] = {name: [] for name in tasks}
    begin_rounds, total = time.perf_counter(), rounds or LEAST_ROUNDS
    for done in range(1, _MOST_ROUNDS + 1):
        for name, task in tasks.items():
            measured[name].append(seconds_of(task, repeats[name], device))
        if rounds is None:  # what is left of the time, in rounds as long as those so far
            one_round = (time.perf_counter() - begin_rounds) / done
            total = max(LEAST_ROUNDS, min(_MOST_ROUNDS, int((seconds - (begin_rounds - begin)) / one_round)))
        on_round(done, max(total, done))
        if done >= total:
            break
    return measured


def seconds_of(task: Task, repeats: int, device: torch.device) -> float:
    """Seconds of one call of a task, of several in a row. On a GPU nothing waits between the calls: the work of one is
    prepared while the last one's is done, as in training."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(repeats):
            task()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000 / repeats
    _wait(device)
    begin = time.perf_counter()
    for _ in range(repeats):
        task()
    _wait(device)
    return (time.perf_counter() - begin) / repeats


def large_product(device: torch.device) -> tuple[Task, int]:
    """A large matrix product in bf16, which shows what the hardware can do, and its floating-point operations."""
    side = _CEILING_SIDE.get(device.type, 4096)
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    return lambda: left @ right, 2 * side**3


def _repeats(task: Task, device: torch.device) -> int:
    """Warm a task up; how often it is to be called in one measurement."""
    least = _LEAST_SECONDS.get(device.type, _LEAST_ELSEWHERE)
    seconds_of(task, 1, device)
    return max(1, min(_MOST_REPEATS, round(least / seconds_of(task, 1, device))))


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
