"""Weights from elsewhere, put into an encoder of ours: who calls them what is found out, and nothing is unpickled.

Trainers wrap a network's weights (a state dict in a checkpoint, a backbone in a method, a method in a DataParallel), so
names are looked for behind every prefix that occurs. What the encoder needs must all be there; what the file holds
beyond that is named in `Loaded`.
"""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.nn.key_maps import LAYOUTS, TWICE, Layout
from evensphere.untrusted import shown

_FOLDER = ("model.safetensors", "pytorch_model.bin")  # of Hugging Face
_DEPTH, _PREFIXES, _PROBES = 8, 64, 3  # of nesting; tried for each layout; names by which they are found
_COUNTERS = "num_batches_tracked"  # which BatchNorm does without
# of two networks in one checkpoint that differ by nothing else, the one that was trained by gradients is taken
_FOLLOWERS = ("momentum", "teacher", "target", "encoder_k", "ema")


class Loaded(NamedTuple):
    """layout: whose names they were (see nn/key_maps.py). prefix: what stood before them. tensors: how many were taken.
    left_out: tensors that were not, by the beginning of their names."""

    layout: str
    prefix: str
    tensors: int
    left_out: dict[str, int]

    def __str__(self) -> str:
        behind = f" behind '{shown(self.prefix)}'" if self.prefix else ""
        others = ", ".join(f"{shown(name)} ({count})" for name, count in self.left_out.items())
        return f"{self.tensors} tensors{behind} (named as by {self.layout}); left out: {others or 'none'}."


class _Found(NamedTuple):
    layout: str
    prefix: str
    names: dict[str, tuple[str, ...]]  # ours: theirs
    absent: list[str]


def load_weights(encoder: nn.Module, weights: str | Path, what: str = "the backbone") -> Loaded:
    """Put weights from a file into an encoder: a .safetensors file, one of torch with nothing but tensors and plain
    values, or a Hugging Face folder. Of torchvision, timm, Hugging Face, Lightly, solo-learn, MoCo, the authors' GH and
    others that use their names.

    what: the encoder in words. Raises InputError, with the encoder as it was, where the file cannot be read, lacks some
    of the encoder's weights, or has one of another shape.
    """
    file = weights_file(weights)
    state, own = read_tensors(file), encoder.state_dict()
    found = _best(state, own)
    if found.absent:
        needed = sum(not name.endswith(_COUNTERS) for name in own)
        raise InputError(
            f"{shown(str(file))} lacks {len(found.absent)} of the {needed} weights of {what}, the first being "
            f"{found.absent[0]}; give the name of the model that it was saved from, or other weights."
        )
    taken = {ours: torch.cat([state[name] for name in theirs]) for ours, theirs in found.names.items() if theirs[1:]}
    taken |= {ours: state[theirs[0]] for ours, theirs in found.names.items() if not theirs[1:]}
    for ours, tensor in taken.items():
        _check(file, ours, tensor, own[ours], what)
    used = {name for theirs in found.names.values() for name in theirs}
    others = [name for name in state if name not in used]
    if (deeper := _deeper(found, used, others)) is not None:
        raise InputError(
            f"{shown(str(file))} holds a deeper network than {what}: it has {shown(deeper)}, say; give the name of the "
            "model that it was saved from."
        )
    encoder.load_state_dict(own | taken)
    return Loaded(found.layout, found.prefix, len(used), _summed(found.prefix, others))


def _check(file: Path, name: str, given: Tensor, own: Tensor, what: str) -> None:
    if given.shape != own.shape:
        advice = "give weights of a network of the same shape"
        if name == "conv1.weight" and given.shape[1:2] == own.shape[1:2]:
            advice = f"give --set backbone.stem={'imagenet' if given.shape[-1] == 7 else 'cifar'}"
        elif name == "pos_embed":
            advice = "give --set views.size=SIZE with the size of images that it was trained on"
        raise InputError(
            f"{shown(str(file))} does not fit {what}: {name} has the shape {list(given.shape)} there and "
            f"{list(own.shape)} here; {advice}."
        )
    if own.is_floating_point() and not (given.is_floating_point() and given.isfinite().all()):
        raise InputError(f"{shown(str(file))} holds {name} with numbers that are not finite; give other weights.")


# --- whose names they are ---------------------------------------------------------------------------------------------


def _best(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> _Found:
    """The reading of the file that has most of the encoder's weights."""
    found = [
        _looked_up(state, own, name, layout, prefix)
        for name, layout in LAYOUTS.items()
        for prefix in _prefixes(state, own, layout)
    ]
    if not found:
        return _looked_up(state, own, "torchvision or timm", LAYOUTS["torchvision or timm"], "")
    return min(found, key=lambda one: (len(one.absent), any(word in one.prefix for word in _FOLLOWERS)))


def _prefixes(state: Mapping[str, Tensor], own: Mapping[str, Tensor], layout: Layout) -> list[str]:
    """What stands before some of the encoder's first names."""
    probes = [layout(name)[0] for name in list(own)[:_PROBES]]
    ends = (name[: -len(probe)] for probe in probes for name in state if name.endswith(probe))
    return list(dict.fromkeys(end for end in ends if not end or end.endswith(".")))[:_PREFIXES]


def _looked_up(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], name: str, layout: Layout, prefix: str
) -> _Found:
    names = {ours: tuple(prefix + theirs for theirs in layout(ours)) for ours in own}
    absent = [ours for ours, theirs in names.items() if not all(one in state for one in theirs)]
    for ours in absent:
        del names[ours]
    return _Found(name, prefix, names, [ours for ours in absent if not ours.endswith(_COUNTERS)])


def _deeper(found: _Found, used: set[str], others: list[str]) -> str | None:
    """A tensor of a block that the encoder has no place for; None where there is none."""
    if found.layout == TWICE:  # the other norms are named like the blocks of a deeper network
        return None

    def kind(name: str) -> str:
        return re.sub(r"\d+", "#", name.removeprefix(found.prefix))

    blocks = {kind(name) for name in used if kind(name).count("#") > 1}  # of blocks, and in them
    return next((name for name in others if name.startswith(found.prefix) and kind(name) in blocks), None)


def _summed(prefix: str, names: list[str]) -> dict[str, int]:
    """How many tensors there are whose names begin alike."""
    parts = max(1, prefix.count("."))
    return dict(Counter(".".join(name.split(".")[:parts]) for name in names))


# --- reading ----------------------------------------------------------------------------------------------------------


def weights_file(weights: str | Path) -> Path:
    """The file of weights that a path names: itself, or the one in a Hugging Face folder."""
    path = Path(weights).expanduser()
    if path.is_dir():
        path = next((path / name for name in _FOLDER if (path / name).is_file()), path)
    if not path.is_file():
        wanted = f"it is a folder without {' or '.join(_FOLDER)}" if path.is_dir() else "there is no such file"
        raise InputError(f"The weights {shown(str(weights))} cannot be read ({wanted}); give a file of weights.")
    return path


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Every tensor of a file, by its name; what is nested has the names around it before its own, with dots between.

    Raises InputError where the file cannot be read without running what is in it, or has no tensors by name.
    """
    try:
        content = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"The weights {shown(str(file))} cannot be read: the file is damaged, or holds more than tensors (hyper-"
            "parameters, say), which could run code; if you trust whoever made it, save its tensors alone: python -c "
            "\"import torch; torch.save(torch.load('OLD', weights_only=False)['state_dict'], 'NEW')\"."
        ) from error
    except Exception as error:  # each format has its own ways to be damaged
        reason = shown(" ".join(str(error).split()).partition(". ")[0][:200])
        raise InputError(
            f"The weights {shown(str(file))} cannot be read ({reason}); give a .safetensors file, or one that holds "
            "tensors only."
        ) from error
    tensors = dict(_flat(content, "", 0))
    if not tensors:
        raise InputError(f"{shown(str(file))} holds no weights by name; save the model's state_dict().")
    return tensors


def _flat(content: Any, name: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        if name and not content.is_sparse and not content.is_quantized:
            yield name, content.detach()
    elif isinstance(content, Mapping) and depth < _DEPTH:
        for key, value in content.items():
            if isinstance(key, str):
                yield from _flat(value, f"{name}.{key}" if name else key, depth + 1)


def checksum_of(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
