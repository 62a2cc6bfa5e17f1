"""The command that a command suggests to run next, ready to be pasted: whatever is in a path stays one word."""

from __future__ import annotations

import json
import shlex
from typing import Any

from evensphere.data.kinds import OWN
from evensphere.recipes.part import Part


def command(*words: object) -> str:
    """`evensphere ...`, with quotes where a shell needs them."""
    return shlex.join(["evensphere", *map(str, words)])


def given_data(data: Part) -> list[str]:
    """The words that name a collection: --data, and --set for what else is said of it."""
    options = dict(data.options)
    if data.name in OWN:
        path = options.pop("path", "PATH")
        words = _repeated("--data", path if isinstance(path, list | tuple) else [path])
    else:
        words = ["--data", data.name]
    return words + _repeated("--set", [f"data.{name}={_spelled(value)}" for name, value in options.items()])


def _repeated(option: str, values: Any) -> list[str]:
    return [word for value in values for word in (option, value)]


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
