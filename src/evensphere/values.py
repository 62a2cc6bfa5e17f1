"""Values that somebody typed, or a stranger's recipe says: in their range, and small enough for this machine.

Constructors ask these where they declare a hyper-parameter, before anything is allocated.
"""

from __future__ import annotations

import math
from pathlib import Path

from evensphere.errors import InputError


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):  # type: ignore[operator]
        allowed = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        raise InputError(f"{name} = {spelled(value)} was given; it takes a whole number {allowed}.")


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Refuse what is no finite number from `least` to `most`."""
    if not least <= value <= most or abs(value) == math.inf:  # whole numbers may be beyond all floats
        bounds = [f"at least {least:g}"] if least > -math.inf else []
        bounds += [f"at most {most:g}"] if most < math.inf else []
        raise InputError(
            f"{name} = {spelled(value)} was given; it must be {' and '.join(bounds) or 'a finite number'}."
        )


def check_memory(what: str, count: float) -> None:
    """Refuse what would take more than the memory that is free. what: "A queue of 5 embeddings", say. count: bytes."""
    free = free_memory()
    if count > free:
        raise InputError(
            f"{what} would take {as_bytes(count)} of memory, and {as_bytes(free)} are free; choose a smaller one."
        )


def free_memory() -> float:
    """Bytes of memory that this process may still take: of the machine, of its container and of its own limit."""
    import psutil

    return max(0.0, min(float(psutil.virtual_memory().available), _container_memory(), _own_limit()))


def _container_memory() -> float:
    """Bytes that the control group of this process may still take."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / file).read_text()) for file in ("memory.max", "memory.current"))
        rows = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        # what was read from files counts as used, and is given back as soon as somebody wants the room
        cached = sum(int(count) for name, count in rows if name in ("active_file", "inactive_file"))
        return limit - max(0, used - cached)
    except (OSError, ValueError):  # no group, or "max"
        return math.inf


def _own_limit() -> float:
    """Bytes of address space that this process may still take (`ulimit -v`)."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    import psutil

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit - psutil.Process().memory_info().vms


def as_bytes(count: float) -> str:
    """'1.2 GB'"""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:,.0f} {units[0]}" if count >= 10 or units[0] == "bytes" else f"{count:.1f} {units[0]}"


def spelled(value: object) -> str:
    """A value in an error's sentence: as Python writes it, but not by the page."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= 80 else text[:60] + "..."
