"""The command that a command suggests to run next, ready to be pasted: whatever is in a path stays one word."""

from __future__ import annotations

import json
import shlex
from typing import Any

from evensphere.data.kinds import OWN
from evensphere.recipes.part import Part, parse_value


def command(*words: object) -> str:
    """`evensphere ...`, with quotes where a shell needs them."""
    return shlex.join(["evensphere", *map(str, words)])


def given_data(data: Part) -> list[str]:
    """The words that name a collection: --data (--set data=... for one that the user's own code makes), and --set for
    what else is said of it."""
    options = dict(data.options)
    if ":" in data.name:  # code of the user's own, which --data would take for a path
        words = ["--set", f"data={data.name}"]
    elif data.name in OWN:
        path = options.pop("path", "PATH")
        words = _repeated("--data", path if isinstance(path, list | tuple) else [path])
    else:
        words = ["--data", data.name]
    return words + _repeated("--set", [f"data.{name}={_spelled(value)}" for name, value in options.items()])


def _repeated(option: str, values: Any) -> list[str]:
    return [word for value in values for word in (option, value)]


def _spelled(value: Any) -> str:
    """A value as --set reads it. A text that looks like a number, say, has quotes, to stay a text."""
    return value if isinstance(value, str) and parse_value(value.strip()) == value else json.dumps(value)
