"""Several processes, one run: how they start, find each other, wait for the first one, and end together.

The first process owns the run: it looks at the images, holds the lock, prints, evaluates and writes every file. The
others read what it wrote, train their share of each batch, and wait where it works alone. Whatever ends one of them
ends all: what it has to say is left in the store (torch's, in the first process) in which they found each other, and
the others, finding their connections closed, look there.

    evensphere train RECIPE --devices 2                                     this machine, started from here
    torchrun --nproc-per-node 2 $(which evensphere) train RECIPE            started by torchrun, or by srun
    MASTER_ADDR=... MASTER_PORT=... NODE_RANK=i evensphere train RECIPE --devices 2 --nodes 2       on each machine i

EVENSPHERE_TIMEOUT: seconds after which a process that says nothing is given up (1800).
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from inspect import signature
from signal import Signals
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.distributed.distributed_c10d import _get_default_store
from torch.nn.parallel import DistributedDataParallel

from evensphere.engine.sharding import ShardedStrategy, Sharding
from evensphere.errors import InputError, TrainingStopped
from evensphere.ops import collective

T = TypeVar("T")

_SYNC_BUFFERS = next(  # the newer name first
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in signature(DistributedDataParallel).parameters
)
_POLL = 0.05  # seconds between looks into the store
_FAREWELL = 10.0  # seconds for the others to hear why the run ended
_PATIENCE = 1800.0
_SPOKEN: dict[str, type[Exception]] = {  # endings that are one sentence, which every process ends with
    "InputError": InputError,
    "TrainingStopped": TrainingStopped,
    "OSError": OSError,
}


class Processes:
    """The processes of a run, as one of them sees them; a run in one process has none but itself to wait for.

    devices: processes on this machine, each with a GPU of its own where there are GPUs. nodes: machines. sharding: how
    parameters lie on them (see engine/sharding.py). first: whether this is the one that owns the run.
    """

    def __init__(self, devices: int = 1, nodes: int = 1, sharding: Sharding = "none") -> None:
        self.devices, self.nodes, self.sharding = devices, nodes, sharding
        self.first = True
        self._turn = 0
        self._store: Any = None
        self._silent = False  # whether the store has stopped answering

    @property
    def count(self) -> int:
        return self.devices * self.nodes

    def fabric(self, precision: str = "32-true") -> Fabric:
        """The device and the precision of this process, and how its gradients meet the others'."""
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it repeats what recipe.json holds
        given: dict[str, Any] = {"accelerator": "auto", "devices": 1}
        if self.count > 1:
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
            given = {"accelerator": accelerator, "devices": self.devices, "num_nodes": self.nodes}
            given["strategy"] = self._strategy()
        fabric = Fabric(precision=precision, **given)  # type: ignore[arg-type]
        fabric.launch()
        return fabric

    def _strategy(self) -> DDPStrategy:
        timeout = timedelta(seconds=patience())
        if self.sharding == "fsdp":
            return ShardedStrategy(timeout=timeout)
        # buffers are alike on all processes; a frozen parameter gets no gradient, which DDP has to look out for
        options: dict[str, Any] = {_SYNC_BUFFERS: False, "find_unused_parameters": True}
        return DDPStrategy(timeout=timeout, **options)

    def join(self) -> None:
        """Find the others. Raises TrainingStopped if they do not come."""
        try:
            fabric = self.fabric()
        except RuntimeError as error:
            raise TrainingStopped(
                f"{self.count} processes did not find each other at {os.environ.get('MASTER_ADDR')}:"
                f"{os.environ.get('MASTER_PORT')} within {patience():g} seconds ({_first_line(error)}); check that all "
                "were started, with the same --devices and --nodes, and can reach that address."
            ) from error
        self.first = fabric.is_global_zero
        self._store = _get_default_store()

    # --- taking turns -------------------------------------------------------------------------------------------------

    def meet_first(self) -> None:
        """The others wait here until the first process comes, however long what it does takes, unless it is lost."""
        if self._store is None:
            return
        turn, self._turn = f"turn/{self._turn}", self._turn + 1
        if self.first:
            self._store.set(turn, "")
        while not self._ask(lambda: self._store.check([turn]), patience()):
            if self._ask(self._heard, patience()) is not None:
                raise _Lost("the first process ended")
            time.sleep(_POLL)

    def in_turn(self, work: Callable[[], T]) -> T:
        """What each process makes of some work: first the first one, then the others."""
        if not self.first:
            self.meet_first()
            return work()
        result = work()
        self.meet_first()
        return result

    # --- ending together ----------------------------------------------------------------------------------------------

    def ended_by(self, error: BaseException) -> BaseException:
        """What the run ends with in this process, when this error came up here: the same as in all others."""
        if self._store is None or isinstance(error, KeyboardInterrupt | SystemExit):
            return error
        ending = self._lost(error) if _is_loss(error) else error
        known = [kind for kind in _SPOKEN if isinstance(ending, _SPOKEN[kind])]
        sentence = str(ending) if known else f"A process failed ({type(error).__name__}: {_first_line(error)})."
        with suppress(_Lost):  # the store is gone with the first process
            if (heard := self._ask(self._heard, _FAREWELL)) is not None:
                return _SPOKEN[heard[0]](heard[1])
            kind = known[0] if known else "TrainingStopped"
            self._ask(lambda: self._store.set("ending", json.dumps([kind, sentence])), _FAREWELL)
        return ending

    def _heard(self) -> tuple[str, str] | None:
        """What some process said the run ends with."""
        if not self._store.check(["ending"]):
            return None
        kind, sentence = json.loads(self._store.get("ending"))
        return kind, sentence

    def _lost(self, error: BaseException) -> TrainingStopped:
        return TrainingStopped(
            f"Process {dist.get_rank() if dist.is_initialized() else '?'} of {self.count} lost the others "
            f"({_first_line(error)}); go on from the last checkpoint with the same command and --resume."
        )

    def leave(self) -> None:
        """Close the connections, so that whoever waits at one looks up; the store stays until the others have left."""
        if self._store is None:
            return
        if dist.is_initialized():
            dist.destroy_process_group()
        until = time.monotonic() + _FAREWELL
        with suppress(_Lost):
            left = self._ask(lambda: self._store.add("left", 1), _FAREWELL)
            while self.first and left < self.count and time.monotonic() < until:
                time.sleep(_POLL)
                left = self._ask(lambda: self._store.add("left", 0), _FAREWELL)
        self._store = None

    def _ask(self, ask: Callable[[], T], seconds: float) -> T:
        """The store's answer. Raises _Lost when there is none: a connection that was cut says nothing, for ever."""
        if self._silent:
            raise _Lost("no answer")
        answers: list[T] = []
        errors: list[Exception] = []

        def wait() -> None:
            try:
                answers.append(ask())
            except Exception as error:
                errors.append(error)

        asking = threading.Thread(target=wait, daemon=True)
        asking.start()
        asking.join(seconds)
        if not answers:
            self._silent = True
            raise _Lost(_first_line(errors[0]) if errors else "no answer")
        return answers[0]


def agreed(asked: Signals | None) -> Signals | None:
    """The signal that any of the processes was sent, for all of them: they stop at the same step."""
    number = collective.largest(int(asked or 0))
    return Signals(number) if number else None


class _Lost(RuntimeError):
    """Other processes do not answer."""


@contextmanager
def together(devices: int | None = None, nodes: int | None = None, sharding: Sharding = "none") -> Iterator[Processes]:
    """The processes of a run, for as long as it lasts; those on this machine are started unless somebody else did.

    devices: processes on each machine; None: as many as torchrun or srun started, else 1. nodes: machines, likewise.
    sharding: how parameters lie on them. Raises InputError for numbers that cannot be, TrainingStopped when processes
    are not found or lost.
    """
    processes = Processes(*asked_for(devices, nodes, os.environ), sharding)
    if sharding != "none" and processes.count == 1:
        raise InputError(f"sharding = {sharding} was given for one process; give --devices N as well, or leave it out.")
    if processes.count == 1:
        yield processes
        return
    before = dict(os.environ)
    started = _start_others(processes)
    try:
        processes.join()
        yield processes
    except BaseException as error:
        ending = processes.ended_by(error)
        if ending is error:
            raise
        raise ending from error
    finally:
        processes.leave()
        _see_off(started)
        os.environ.clear()
        os.environ.update(before)


def asked_for(devices: int | None, nodes: int | None, environment: Mapping[str, str]) -> tuple[int, int]:
    """Processes on each machine, and machines. Raises InputError where they are not what torchrun or srun started."""
    for name, given in (("devices", devices), ("nodes", nodes)):
        if given is not None and given < 1:
            raise InputError(f"{name} = {given} was given; give 1 or more.")
    there = _started_by_others(environment)
    if there is not None:
        who, *started = there
        for name, given, count in zip(("devices", "nodes"), (devices, nodes), started, strict=True):
            if given not in (None, count):
                raise InputError(f"{name} = {given} was given, but {who} started {count}; leave it out.")
        _check_gpus(started[0], started[1], who)
        return started[0], started[1]
    devices, nodes = devices or 1, nodes or 1
    if nodes > 1 and (missing := [name for name in _MEETING if name not in environment]):
        raise InputError(
            f"nodes = {nodes} was given, but {', '.join(missing)} is not set; set {', '.join(_MEETING)} in the "
            "environment of each machine (the first one's address, a free port of it, and 0, 1, ...), or use torchrun."
        )
    _check_gpus(devices, nodes)
    return devices, nodes


def _check_gpus(devices: int, nodes: int, who: str | None = None) -> None:
    """Refuse more processes on a machine than it has GPUs, if it has any. who: started them; None: nobody has yet."""
    gpus = torch.cuda.device_count()
    if not gpus or devices <= gpus or devices * nodes == 1:
        return
    known = "1 GPU" if gpus == 1 else f"{gpus} GPUs"
    if who is not None:
        raise InputError(
            f"{who} started {devices} processes on this machine, which see {known}; start as many as there are GPUs."
        )
    raise InputError(f"devices = {devices} was given, but this machine has {known}; give {gpus} at most.")


_MEETING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def _started_by_others(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """By whom, how many on this machine, and how many machines."""
    if "TORCHELASTIC_RUN_ID" in environment:
        here, everywhere = int(environment["LOCAL_WORLD_SIZE"]), int(environment["WORLD_SIZE"])
        return "torchrun", here, everywhere // here
    if int(environment.get("SLURM_NTASKS", 1)) > 1 and SLURMEnvironment.detect():
        everywhere, machines = int(environment["SLURM_NTASKS"]), int(environment.get("SLURM_NNODES", 1))
        return "srun", everywhere // machines, machines
    return None


def patience() -> float:
    """Seconds after which a process that says nothing is given up."""
    given = os.environ.get("EVENSPHERE_TIMEOUT", str(_PATIENCE))
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"EVENSPHERE_TIMEOUT = {given!r} is set; it must be a number of seconds above 0.")
    return seconds


def _start_others(processes: Processes) -> list[subprocess.Popen[bytes]]:
    """Run this very command again, once for each other process of this machine.

    Fabric can do that, too, but ends the first process with SIGKILL when another one ends, before it could say why.
    """
    if "LOCAL_RANK" in os.environ or _started_by_others(os.environ) is not None:
        return []
    command = sys.orig_argv[1:]
    if hasattr(sys, "ps1") or "ipykernel" in sys.modules or not command or "-" in command[:1]:
        raise InputError(
            "Several processes start by running the same command again, and a notebook or a prompt has none; write a "
            "script, or use `evensphere train --devices N`."
        )
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
    os.environ.setdefault("NODE_RANK", "0")
    os.environ["LOCAL_RANK"] = "0"
    return [
        subprocess.Popen(
            [sys.executable, *command], env=os.environ | {"LOCAL_RANK": str(rank)}, stdin=subprocess.DEVNULL
        )
        for rank in range(1, processes.devices)
    ]


def _see_off(started: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the processes that were started here to end, which they do when the first one has; not for ever."""
    until = time.monotonic() + _FAREWELL
    for process in started:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_loss(error: BaseException) -> bool:
    """Whether an error came from a connection. Gloo's are of no type of their own."""
    words = ("gloo", "NCCL", "Connection closed", "Connection reset", "Socket Timeout")
    return isinstance(error, _Lost | dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def _first_line(error: BaseException) -> str:
    """What an error says, without where in torch's sources it says so."""
    line = str(error).strip().partition("\n")[0].partition("] ")
    text = line[2] if line[0].startswith("[") and line[2] else "".join(line)
    return text.partition(". This is typically")[0].rstrip(".")
