"""What strangers wrote, read within bounds and shown as it is.

Run folders, cards, lists and archives are handed around. Whoever made one may have put anything into its files: a
gigabyte where a kilobyte is expected, brackets nested a million deep, numbers of a million digits, or a name that
repaints the terminal. What is read here has a bounded size, or is refused in one sentence.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evensphere.errors import InputError

# bytes; far beyond what the largest runs write, and small enough to be read at once
SETTINGS = 4_000_000  # recipe.json, environment.json and their like
RESULTS = 64_000_000  # eval.json has some numbers for every class
IMAGES = 2_000_000_000  # a path for every image
EVENTS = 1_000_000_000  # metrics.jsonl has a line for every step
EVENT = 4_000_000  # one of these: a number for every anchor


def read_bytes(file: Path, limit: int) -> bytes:
    """All of a file. Raises InputError where it is longer than `limit` bytes or no plain file (a pipe would never end),
    OSError where it cannot be opened, ValueError for a path that no file can have."""
    with open(file, "rb", opener=_opener) as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{shown(str(file))} is no plain file; give a file.")
        # some files, such as those of /proc, do not say how long they are, and others grow
        at_once, left, parts = max(status.st_size, 2**16) + 1, limit + 1, list[bytes]()
        while left and (part := opened.read(min(at_once, left))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise InputError(
                f"{shown(str(file))} is longer than the {limit:,} bytes that such a file may have; "
                "is it what it is said to be?"
            )
        return b"".join(parts)


def _opener(path: str, flags: int) -> int:
    """Without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse_json(text: str | bytes, finite: bool = True) -> Any:
    """What a JSON text says. finite: whether NaN and infinities are refused, also those of numbers like 1e400; what
    training logs may hold them. Raises ValueError, and nothing else, for all that is not JSON."""
    try:
        if finite:
            return json.loads(text, parse_constant=_no_number, parse_float=_finite)
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(file: Path, limit: int = SETTINGS, finite: bool = True) -> Any:
    """What a JSON file says. Raises InputError, OSError and ValueError as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(file, limit), finite)


def read_json_object(file: Path, limit: int = SETTINGS, finite: bool = True) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no such file or something else is in it."""
    try:
        content = read_json(file, limit, finite)
    except (OSError, ValueError):  # an InputError is a ValueError
        return None
    return content if isinstance(content, dict) else None


def read_json_lines(file: Path, size: int | None = None) -> Iterator[dict[str, Any] | None]:
    """The JSON object in each line of a file, of its first `size` bytes if given; None for a line that holds something
    else. Empty lines are passed over, and a last line that was cut short. One line is in memory at a time."""
    left = EVENTS if size is None else min(size, EVENTS)
    with open(file, "rb", opener=_opener) as opened:
        while left > 0 and (line := opened.readline(min(left, EVENT))):
            left -= len(line)
            content = _json_object(line) if line.strip() else {}
            if line.strip() and (content is not None or line.endswith(b"\n") or len(line) == EVENT):
                yield content


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        content = parse_json(line, finite=False)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large a number")
    return number


def shown(text: str) -> str:
    r"""A text of unknown origin as a terminal can show it, in one line: what would move the cursor, change colours,
    turn the direction of reading or end the line is spelled, such as \x1b."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
