"""Parts of a recipe: a name and its options, checked against the signature of what the name stands for.

A hyper-parameter is declared once, as a keyword of a constructor; here its name, type and default are read off that
signature, so `Part("simclr", temperatur=0.2)` is answered with "did you mean 'temperature'?".
"""

from __future__ import annotations

import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import Tensor, dtype

from evensphere.data import SOURCES
from evensphere.data.augment import VIEWS
from evensphere.data.kinds import OWN
from evensphere.engine.optim import OPTIMIZERS, SCHEDULES
from evensphere.errors import InputError, unknown_name
from evensphere.methods import DISTILLATION, METHODS
from evensphere.nn.backbone import BACKBONES
from evensphere.recipes import STAGES
from evensphere.values import spelled

_VIEWS_CLASS = "evensphere.data.augment:Views"
_TIMM = "timm/"

# names of each kind of part, and the arguments that the program itself gives
KINDS: dict[str, tuple[Mapping[str, str], frozenset[str]]] = {
    "data": (SOURCES, frozenset()),
    "views": (dict.fromkeys(VIEWS, _VIEWS_CLASS), frozenset({"seed"})),
    "backbone": (BACKBONES, frozenset({"in_channels", "image_sizes", "name"})),
    "method": (METHODS, frozenset({"encoder", "num_samples", "teachers", "owner"})),
    "harmonizer": (
        {"gh": "evensphere.gh.harmonizer:Harmonizer", "none": "evensphere.gh.harmonizer:NoHarmonizer"},
        frozenset({"dim", "num_samples", "batch_size", "steps_per_epoch", "total_steps", "sample_weights"}),
    ),
    "optimizer": (OPTIMIZERS, frozenset({"parameters", "features_of"})),
    "schedule": (SCHEDULES, frozenset({"epochs"})),
    "stages": ({name: home for name, (home, _) in STAGES.items()}, frozenset()),
}


@dataclass(frozen=True, init=False)
class Part:
    """`Part("simclr", temperature=0.2)`. The name is one of ours, 'timm/NAME' for a backbone, or an import path
    'package.module:name' of the reader's own."""

    name: str
    options: dict[str, Any]

    def __init__(self, name: str, /, **options: Any) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "options", options)

    def replace(self, **options: Any) -> Part:
        return Part(self.name, **(self.options | options))


def build(kind: str, part: Part, **given: Any) -> Any:
    """The object a part stands for. `given`: what the program adds; arguments the constructor does not take are left
    out. Raises InputError for an unknown name, an unknown option or a value of the wrong type."""
    options = check(kind, part)
    constructor = _constructor(kind, part.name)
    taken = inspect.signature(constructor).parameters
    options = {name: value for name, value in given.items() if name in taken} | options
    for name, parameter in taken.items():
        if parameter.default is parameter.empty and parameter.kind != parameter.VAR_KEYWORD and name not in options:
            own = kind == "data" and part.name in OWN and name == "path"
            flag = "--data PATH" if own else f"--set {kind}.{name}={'PATH' if name == 'path' else 'VALUE'}"
            raise InputError(f"The {kind} '{part.name}' needs its {name}; give {flag}.")
    return constructor(**options)


def check(kind: str, part: Part) -> dict[str, Any]:
    """The part's options, preset ones included, with the types its constructor asks for."""
    signature = options_of(kind, part.name)
    presets = VIEWS.get(part.name, {}) if kind == "views" else {}
    options = presets | part.options
    if part.name.startswith(_TIMM):
        for name, value in options.items():
            _check_timm_option(name, value)
        return {"name": part.name.removeprefix(_TIMM)} | options
    for name, value in options.items():
        if name not in signature:
            raise unknown_name(f"option of {kind} {part.name}", name, signature)
        hint = signature[name]
        if not fits(value, hint):
            raise InputError(f"{kind}.{name} = {spelled(value)} was given; it takes {spell(hint)}.")
    return {name: _tupled(value) for name, value in options.items()}


def _check_timm_option(name: str, value: Any) -> None:
    """timm's options are its own to check, but for those that open files and addresses, and for numbers without end."""
    if name in ("name", "in_channels", "image_sizes") or name.startswith(("checkpoint", "pretrained_", "cache")):
        raise InputError(
            f"backbone.{name} was given; a timm backbone takes options of the model itself, and pretrained."
        )
    flat = value if isinstance(value, list | tuple) else [value]
    for one in flat:
        if isinstance(one, int | float) and not abs(one) <= 1_000_000:
            raise InputError(f"backbone.{name} = {spelled(value)} was given; it takes numbers up to 1,000,000.")


def options_of(kind: str, name: str) -> dict[str, Any]:
    """Settable options of a named part, with their types."""
    if name.startswith(_TIMM):
        return {}
    constructor = _constructor(kind, name)
    hints = get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    internal = KINDS[kind][1]
    names = [name for name in inspect.signature(constructor).parameters if name not in internal]
    return {name: hints.get(name, Any) for name in names}


def import_path(kind: str, part: Part) -> str | None:
    """The import path that a part names, None for what is ours."""
    known = KINDS[kind][0]
    ours = part.name in known or part.name in known.values() or part.name == DISTILLATION
    return None if ours or part.name.startswith(_TIMM) or ":" not in part.name else part.name


def parse_value(text: str) -> Any:
    """A value from the command line: JSON where it is JSON (0.2, true, null, [1, 2]), else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text, text)


def _constructor(kind: str, name: str) -> Callable[..., Any]:
    known = KINDS[kind][0]
    if kind == "backbone" and name.startswith(_TIMM):
        name = "evensphere.nn.backbone:timm_backbone"
    elif name in known:
        name = known[name]
    elif ":" not in name:
        raise unknown_name(kind, name, known)
    module, _, attribute = name.partition(":")
    try:
        constructor: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"The {kind} '{name}' cannot be imported: {error}.") from error
    return constructor


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (JSON's types and tuples) fits a type. Types only the program can give never fit."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, argument) for argument in arguments)
    if origin is Literal:
        return value in arguments
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is None or hint is type(None):
        return value is None
    if origin is dict:
        return isinstance(value, dict)
    if origin is not None:  # sequences and tuples of one type; a tuple may say how many
        length = len(arguments) if origin is tuple and Ellipsis not in arguments else None
        listed = isinstance(value, list | tuple) and length in (None, len(value))
        return listed and all(fits(item, arguments[0]) for item in value)
    return isinstance(value, hint) if isinstance(hint, type) else True


def spell(hint: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        words = [spell(argument) for argument in arguments if argument not in (Tensor, dtype)]
        return " or ".join(dict.fromkeys(word for word in words if word not in ("Duration", "Temperature")))
    if origin is Literal:
        return " or ".join(repr(argument) for argument in arguments)
    if origin is dict:
        return "an object"
    if origin is not None:
        number = f"{len(arguments)} times " if origin is tuple and Ellipsis not in arguments else ""
        return f"a list of {number}{spell(arguments[0])}"
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _tupled(value: Any) -> Any:
    """JSON has lists where constructors take tuples."""
    return tuple(value) if isinstance(value, list) else value
