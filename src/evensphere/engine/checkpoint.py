"""Checkpoints: everything a stopped run needs to go on as if it had never stopped, in one file written in one piece."""

from __future__ import annotations

import io
import json
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from evensphere.errors import InputError
from evensphere.rundir import RunDir, atomic_write

Heritage = Literal["kept", "fresh", "none"]

FORMAT = 1
KEPT = 2  # one to go on from, one in case the disk loses it


def save_checkpoint(
    run: RunDir, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, milestones: tuple[int, ...] = ()
) -> None:
    """Write the state of a run after `step` steps, then drop checkpoints no longer needed."""
    state: dict[str, Any] = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"format": FORMAT, "step": step, "metrics_size": run.metrics_size()}
    _write(run, state)
    run.prune_checkpoints(KEPT, milestones)


def _write(run: RunDir, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write(run.checkpoint_file(state["step"]), buffer.getvalue())


class Position(NamedTuple):
    """Where to go on from. fresh: the harmonizer knows nothing yet, because its anchors are not those of the run that
    this one branched off."""

    step: int
    fresh: bool


def load_checkpoint(run: RunDir, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> Position:
    """Restore the newest checkpoint and cut metrics.jsonl back to it.

    Without a checkpoint the run starts over: that is what going on from nothing means.
    """
    steps = run.checkpoint_steps()
    if not steps:
        run.truncate_metrics(0)
        return Position(0, fresh=False)
    state = read_checkpoint(run, steps[-1], device)
    fresh = bool(state.get("fresh_harmonizer"))
    try:
        missing = model.load_state_dict(state["model"], strict=not fresh).missing_keys
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # torch raises many kinds for a state of something else
        reason = str(error).partition("\n")[0]
        raise InputError(f"{run.checkpoint_file(steps[-1])} does not fit the run's recipe ({reason}).") from error
    assert all(_is_harmonizers(name) for name in missing), missing
    run.truncate_metrics(state["metrics_size"])
    return Position(state["step"], fresh)


def read_checkpoint(run: RunDir, step: int, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What was saved after `step` steps. Raises InputError where that cannot be read."""
    file = run.checkpoint_file(step)
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(f"{file} cannot be read ({error}); delete it to go on from the one before.") from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict) or not _counted(state):
        raise InputError(f"{file} is no checkpoint of a run; delete it to go on from the one before.")
    if state["format"] != FORMAT:
        raise InputError(f"{file} has format {state['format']}; this version of evensphere reads format {FORMAT}.")
    return state


def _counted(state: dict[str, Any]) -> bool:
    return all(type(state.get(name)) is int and state[name] >= 0 for name in ("format", "step", "metrics_size"))


def branch_checkpoint(source: RunDir, step: int, target: RunDir, harmonizer: Heritage) -> None:
    """Begin `target` where `source` was after `step` steps: its checkpoint and its metrics so far become the target's.

    harmonizer: what becomes of the source's harmonizer. "kept" and "none" (the target has none) make the target to the
        last bit what it would have been had it trained those steps itself; a "fresh" one has other anchors, so that
        what the source's remembers is of no use to it.
    Raises InputError if the source has not kept that checkpoint.
    """
    file = source.checkpoint_file(step)
    if not file.exists():
        raise InputError(f"{source.path} has no checkpoint of step {step}; let it train beyond its warm-up first.")
    state = read_checkpoint(source, step)
    events = source.read_metrics(state["metrics_size"])
    if harmonizer != "kept":
        state["model"] = {name: value for name, value in state["model"].items() if not _is_harmonizers(name)}
        events = [event for event in events if event["event"] != "population"]
    if harmonizer == "none":
        events = [{name: x for name, x in event.items() if name not in ("gh", "gh_weight")} for event in events]
    if harmonizer == "fresh":
        state["fresh_harmonizer"] = True
    for event in events:
        target.append_metrics(event)
    state["metrics_size"] = target.metrics_size()
    _write(target, state)


def _is_harmonizers(name: str) -> bool:
    """Whether an entry of a model's state belongs to the harmonizer."""
    return name.startswith("harmonizer.")


def save_encoder(run: RunDir, encoder: nn.Module, description: dict[str, Any]) -> None:
    """encoder.safetensors: the finished encoder alone, with a description of it in the file's header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    atomic_write(run.encoder_file, save_safetensors(tensors, {"evensphere": json.dumps(description)}))


def load_encoder(run: RunDir, encoder: nn.Module) -> None:
    """Put the weights of encoder.safetensors into an encoder of the same shape."""
    if not run.encoder_file.is_file():
        name = run.read_recipe()["name"]
        raise InputError(
            f"{run.path} has no finished encoder; go on training with "
            f"`evensphere train {name} --resume --out {run.path}` and the settings it was begun with."
        )
    try:
        encoder.load_state_dict(load_safetensors(run.encoder_file.read_bytes()))
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{run.encoder_file} does not fit the run's recipe ({reason}).") from error
