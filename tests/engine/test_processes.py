"""How many processes there are, and what each says when one ends."""

from __future__ import annotations

import time
from typing import Any

import pytest
from torch.distributed import DistNetworkError

from evensphere.engine import processes as module
from evensphere.engine.processes import Processes, asked_for, patience, together
from evensphere.errors import InputError, TrainingStopped

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
MEETING = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "NODE_RANK": "1"}


class Store:
    """What torch's store does, in memory."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.left = 0

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)

    def get(self, key: str) -> str:
        return self.values[key]

    def set(self, key: str, value: str) -> None:
        self.values[key] = value

    def add(self, key: str, count: int) -> int:
        self.left += count
        return self.left


class Silent(Store):
    """One at the other end of a cable that was cut."""

    def check(self, keys: list[str]) -> bool:
        time.sleep(60)
        return False


def one_of_two(store: Store, first: bool = False) -> Processes:
    processes = Processes(2)
    processes.first, processes._store = first, store
    return processes


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "expected"),
    [
        (None, None, {}, (1, 1)),
        (3, None, {}, (3, 1)),
        (2, 4, MEETING, (2, 4)),
        (None, None, TORCHRUN, (2, 3)),
        (2, 3, TORCHRUN, (2, 3)),
    ],
)
def test_how_many(
    devices: int | None, nodes: int | None, environment: dict[str, str], expected: tuple[int, int]
) -> None:
    assert asked_for(devices, nodes, environment) == expected


@pytest.mark.parametrize(
    ("devices", "nodes", "environment", "sentence"),
    [
        (0, None, {}, "devices = 0 was given; give 1 or more"),
        (1, 2, {"MASTER_ADDR": "x"}, "nodes = 2 was given, but MASTER_PORT, NODE_RANK is not set"),
        (4, None, TORCHRUN, "devices = 4 was given, but torchrun started 2; leave it out"),
    ],
)
def test_numbers_that_cannot_be(devices: int, nodes: int | None, environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        asked_for(devices, nodes, environment)


@pytest.mark.parametrize(
    ("devices", "environment", "gpus", "sentence"),
    [
        (None, TORCHRUN, 1, "torchrun started 2 processes on this machine, which see 1 GPU; start as many as there"),
        (2, TORCHRUN, 1, "torchrun started 2 processes"),
        (4, {}, 3, "devices = 4 was given, but this machine has 3 GPUs; give 3 at most"),
        (2, {}, 1, "devices = 2 was given, but this machine has 1 GPU; give 1 at most"),
    ],
)
def test_more_processes_than_gpus_name_who_started_them(
    devices: int | None, environment: dict[str, str], gpus: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    with pytest.raises(InputError, match=sentence):
        asked_for(devices, None, environment)


def test_a_notebook_has_no_command_to_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python"])
    with pytest.raises(InputError, match="a notebook or a prompt has none"), together(2):
        pass


@pytest.mark.parametrize("given", ["no", "0", "inf"])
def test_patience_is_a_number_of_seconds(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert patience() == 1800
    monkeypatch.setenv("EVENSPHERE_TIMEOUT", given)
    with pytest.raises(InputError, match="EVENSPHERE_TIMEOUT"):
        patience()


def test_the_first_goes_first() -> None:
    store = Store()
    done: list[str] = []
    first, other = one_of_two(store, first=True), one_of_two(store)
    first.in_turn(lambda: done.append("first"))
    assert other.in_turn(lambda: [*done, "other"]) == ["first", "other"]


@pytest.mark.parametrize("error", [InputError("Give 1."), TrainingStopped("No more."), OSError("Disk full")])
def test_what_ends_one_ends_all_with_the_same_sentence(error: Exception) -> None:
    store = Store()
    assert one_of_two(store).ended_by(error) is error
    lost = RuntimeError(
        "[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]. This is typically ..."
    )
    heard = one_of_two(store, first=True).ended_by(lost)
    assert (type(heard), str(heard)) == (type(error), str(error))


def test_an_error_of_our_own_ends_the_others_too() -> None:
    store = Store()
    mistake = ZeroDivisionError("division by zero")
    assert one_of_two(store).ended_by(mistake) is mistake, "its traceback is of use"
    assert str(one_of_two(store).ended_by(RuntimeError("gloo"))) == (
        "A process failed (ZeroDivisionError: division by zero)."
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[/gloo/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:80. This is typically caused by"),
        DistNetworkError("Connection reset by peer"),
    ],
)
def test_a_lost_process_is_one_sentence(error: Exception) -> None:
    ending = one_of_two(Store()).ended_by(error)
    assert isinstance(ending, TrainingStopped)
    assert "of 2 lost the others (Connection " in str(ending)
    assert "--resume" in str(ending)


def test_ordinary_errors_are_no_loss() -> None:
    error = RuntimeError("out of memory")
    assert one_of_two(Store()).ended_by(error) is error


def test_waiting_ends_when_the_first_process_has_ended() -> None:
    store = Store()
    one_of_two(store, first=True).ended_by(InputError("Give 1."))
    waiting = one_of_two(store)
    with pytest.raises(RuntimeError) as lost:
        waiting.meet_first()
    assert str(waiting.ended_by(lost.value)) == "Give 1."


def test_a_store_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENSPHERE_TIMEOUT", "0.2")
    begun = time.monotonic()
    waiting = one_of_two(Silent())
    with pytest.raises(RuntimeError, match="no answer") as lost:
        waiting.meet_first()
    assert isinstance(waiting.ended_by(lost.value), TrainingStopped)
    waiting.leave()
    assert time.monotonic() - begun < 5


def test_the_first_waits_for_the_others_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FAREWELL", 3)
    store: Any = Store()
    one_of_two(store).leave()
    begun = time.monotonic()
    one_of_two(store, first=True).leave()
    assert time.monotonic() - begun < 3, "all have left"
    begun = time.monotonic()
    monkeypatch.setattr(module, "_FAREWELL", 0.3)
    one_of_two(Store(), first=True).leave()
    assert time.monotonic() - begun >= 0.3, "one has not"
