"""Checkpoints: everything a stopped run needs to go on as if it had never stopped, in one file written in one piece.

Each carries its checksum inside, so that there is no second file that a power cut could leave behind or ahead. One that
is not what was written is passed over for the one before.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_safetensors
from torch import nn

from evensphere.disk import atomic_write
from evensphere.engine.sharding import shards_of, shards_of_optimizer
from evensphere.errors import InputError
from evensphere.rundir import RunDir, Which
from evensphere.untrusted import parse_json

Heritage = Literal["kept", "statistics", "population", "fresh", "none"]

FORMAT = 1
KEPT = 2  # one to go on from, one in case the disk loses it
_CHECKSUM = "sha256"
_HARMONIZER = "harmonizer."
# what of the state of the run that it branches off a run does not take over
_LEFT_BEHIND: dict[Heritage, tuple[str, ...]] = {
    "kept": (),
    "statistics": (),
    "population": (f"{_HARMONIZER}past.",),  # the queue
    "fresh": (_HARMONIZER,),
    "none": (_HARMONIZER,),
}


def save_checkpoint(
    run: RunDir,
    step: int,
    model: Mapping[str, Any],
    optimizer: Mapping[str, Any],
    milestones: tuple[int, ...] = (),
    keep: int = KEPT,
) -> None:
    """Write the state of a run after `step` steps, then drop what is no longer needed. model, optimizer: what
    `state_dict` says of them."""
    state: dict[str, Any] = {"model": model, "optimizer": optimizer}
    state |= {"format": FORMAT, "step": step, "metrics_size": run.metrics_size()}
    _write(run, state)
    drop_checkpoints(run, milestones, keep)


def drop_checkpoints(run: RunDir, milestones: tuple[int, ...] = (), keep: int = KEPT) -> None:
    """Drop all but the last `keep` checkpoints, the best one (see `RunDir.best_evaluation`) and the milestones."""
    best = run.best_evaluation()
    run.prune_checkpoints(keep, milestones if best is None else (*milestones, best[0]))


def _write(run: RunDir, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state | {_CHECKSUM: checksum(state)}, buffer)
    atomic_write(run.checkpoint_file(state["step"]), buffer.getbuffer())


def checksum(state: object) -> str:
    """SHA-256 of all tensors and values of a state, and of their names: whatever device and file they are in."""
    digest = hashlib.sha256()

    def add(value: object, name: str) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=repr):
                add(value[key], f"{name}/{key!r}")
        elif isinstance(value, list | tuple):
            for i, one in enumerate(value):
                add(one, f"{name}/{i}")
        elif isinstance(value, torch.Tensor):
            digest.update(f"{name}: {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name}: {value!r}\n".encode())

    add(state, "")
    return digest.hexdigest()


class Position(NamedTuple):
    """Where to go on from. fresh: the harmonizer knows nothing yet, because its anchors are not those of the run that
    this one branched off. incomplete: the checkpoint lacks a part of it, because that run had another one."""

    step: int
    fresh: bool
    incomplete: bool = False


def load_checkpoint(
    run: RunDir,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
    console: Console | None = None,
) -> Position:
    """Restore the newest checkpoint that is whole and cut metrics.jsonl back to it.

    Without a checkpoint the run starts over: that is what going on from nothing means.
    console: where it is said which checkpoint that is. Raises InputError if there are checkpoints and none is whole.
    """
    console = console or Console(quiet=True)
    if not run.checkpoint_steps():
        run.truncate_metrics(0)
        return Position(0, fresh=False)
    state = _newest(run, device, console)
    console.print(_going_on(run, state["step"]), soft_wrap=True)
    fresh = bool(state.get("fresh_harmonizer"))
    incomplete = fresh or bool(state.get("incomplete"))
    try:
        missing = model.load_state_dict(
            shards_of(state["model"], model.state_dict()), strict=not incomplete
        ).missing_keys
        optimizer.load_state_dict(shards_of_optimizer(state["optimizer"], optimizer))
    except Exception as error:  # torch raises many kinds for a state of something else
        reason = str(error).partition("\n")[0]
        raise InputError(f"{run.checkpoint_file(state['step'])} does not fit the run's recipe ({reason}).") from error
    assert all(name.startswith(_HARMONIZER) for name in missing), missing
    run.truncate_metrics(state["metrics_size"])
    return Position(state["step"], fresh, incomplete)


def _newest(run: RunDir, device: torch.device, console: Console) -> dict[str, Any]:
    """The newest checkpoint that is whole, and has the metrics that were written before it. Those after it no longer
    count, once there is one."""
    damaged: list[tuple[int, DamagedFile]] = []
    for step in reversed(run.checkpoint_steps()):
        try:
            state = read_checkpoint(run, step, device)
            if run.metrics_size() < state["metrics_size"]:
                raise DamagedFile(f"{run.metrics_file} ends before the checkpoint of step {step} was written")
        except DamagedFile as error:
            damaged.append((step, error))
            continue
        for lost, reason in damaged:
            console.print(f"{str(reason).removesuffix('.')}; the one before is taken.", soft_wrap=True)
            run.set_aside(lost)
        return state
    raise InputError(f"None of the {len(damaged)} checkpoints of {run.path} can be used; the newest: {damaged[0][1]}")


def _going_on(run: RunDir, step: int) -> str:
    last = max((event["step"] + 1 for event in run.read_metrics() if event["event"] == "step"), default=0)
    repeated = f"; the steps after it, of which {last} is the last one known, are trained again" if last > step else ""
    return f"Going on from the checkpoint of step {step}{repeated}."


class DamagedFile(InputError):
    """A file of a run is not what was written."""


def read_checkpoint(run: RunDir, step: int, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What was saved after `step` steps. Raises InputError where that cannot be read: a DamagedFile if it is not what
    was written."""
    file = run.checkpoint_file(step)
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except PermissionError as error:
        raise InputError(f"{file} cannot be read: permission denied.") from error
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise DamagedFile(f"{file} cannot be read ({reason}); delete it to go on from the one before.") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict) or not _counted(state):
        raise DamagedFile(f"{file} is no checkpoint of a run; delete it to go on from the one before.")
    expected = state.pop(_CHECKSUM, None)  # the first versions wrote none
    if expected is not None and checksum(state) != expected:
        raise DamagedFile(f"{file} is damaged (its checksum is another); delete it to go on from the one before.")
    if state["format"] != FORMAT:
        raise InputError(f"{file} has format {state['format']}; this version of evensphere reads format {FORMAT}.")
    return state


def _counted(state: dict[str, Any]) -> bool:
    return all(type(state.get(name)) is int and state[name] >= 0 for name in ("format", "step", "metrics_size"))


def check_branch(source: RunDir, step: int) -> None:
    """Raises InputError if the source has not kept its checkpoint of that step."""
    if not source.checkpoint_file(step).exists():
        raise InputError(f"{source.path} has no checkpoint of step {step}; let it train beyond its warm-up first.")


def branch_checkpoint(source: RunDir, step: int, target: RunDir, harmonizer: Heritage) -> None:
    """Begin `target` where `source` was after `step` steps: its checkpoint and its metrics so far become the target's.

    harmonizer: what becomes of the source's harmonizer. "kept" and "none" (the target has none) make the target to the
        last bit what it would have been had it trained those steps itself. Of "statistics" everything is kept but pi,
        which is estimated anew; of "population" the queue is not kept either, and begins empty. A "fresh" one has other
        anchors, say, so that what the source's remembers is of no use to it.
    Raises InputError if the source has not kept that checkpoint.
    """
    check_branch(source, step)
    state = read_checkpoint(source, step)
    events = source.read_metrics(state["metrics_size"])
    # of how Sinkhorn went, nothing is known before GH acts, and the target may allow it other numbers of iterations
    state["model"].get("harmonizer._extra_state", {}).pop("pace", None)
    left = _LEFT_BEHIND[harmonizer]
    state["model"] = {name: value for name, value in state["model"].items() if not name.startswith(left)}
    if harmonizer != "kept":  # pi is another, and logged where it is estimated
        events = [event for event in events if event["event"] != "population"]
    if harmonizer in ("statistics", "population"):
        state["incomplete"] = True
    if harmonizer == "none":
        events = [{name: x for name, x in event.items() if name not in ("gh", "gh_weight")} for event in events]
    if harmonizer == "fresh":
        state["fresh_harmonizer"] = True
    for event in events:
        target.append_metrics(event)
    state["metrics_size"] = target.metrics_size()
    best = source.best_evaluation()
    if best is not None and best[0] <= step and source.best_file.exists():  # else it is of what they do not share
        atomic_write(target.best_file, source.best_file.read_bytes())
    _write(target, state)


def save_encoder(file: Path, encoder: nn.Module, description: dict[str, Any]) -> None:
    """An encoder alone, as safetensors, with a description of it and its checksum in the file's header: in one entry,
    because safetensors writes several in an order of its own, which is another one every time."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    header = json.dumps(description | {_CHECKSUM: checksum(tensors)})
    atomic_write(file, save_safetensors(tensors, {"evensphere": header}))


def load_encoder(run: RunDir, encoder: nn.Module, which: Which = "last") -> str:
    """Put the weights of a finished run, "last", or those of its best evaluation so far, "best", into an encoder of the
    same shape; returns their checksum. Raises InputError if they are not there, damaged, or of another shape."""
    file = run.encoder_file if which == "last" else run.best_file
    if not file.is_file():
        raise InputError(_no_encoder(run, which))
    return read_encoder(file, encoder)


def read_encoder(file: Path, encoder: nn.Module) -> str:
    """Put the weights of a file that `save_encoder` wrote into an encoder of the same shape; returns their checksum.
    Raises InputError if they are damaged, or of another shape."""
    try:
        with safe_open(file, "pt") as opened:
            expected = json.loads((opened.metadata() or {}).get("evensphere", "{}")).get(_CHECKSUM)
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # it is no dictionary
        found = checksum(tensors)
        if expected not in (None, found):
            raise DamagedFile("its checksum is another")
        encoder.load_state_dict(tensors)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{file} is damaged or does not fit the run's recipe ({reason}).") from error
    return found


def describe_encoder(file: Path) -> dict[str, Any]:
    """What a file that `save_encoder` wrote says of its encoder; nothing for other people's weights. Raises InputError
    for a file that is no safetensors."""
    try:
        with safe_open(file, "pt") as opened:
            content = parse_json((opened.metadata() or {}).get("evensphere", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read as safetensors ({reason}); give a file of that format.") from error
    return content if isinstance(content, dict) else {}


def _no_encoder(run: RunDir, which: Which) -> str:
    if which == "best":
        return (
            f"{run.path} has no best.safetensors: no evaluation on validation images happened while it was trained, or "
            "the best one did in the run that it branched off; take its last encoder."
        )
    name = run.read_recipe()["name"]
    return (
        f"{run.path} has no finished encoder; go on training with "
        f"`evensphere train {name} --resume --out {run.path}` and the settings it was begun with."
    )
