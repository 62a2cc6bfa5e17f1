"""Whose code may run.

A part of a recipe may be an import path, 'package.module:name', of the user's own code. Importing runs it. So a path is
followed where the user typed it, on the command line or in a program; one that is read from a recipe.json, which may
come from anybody, is followed only if the user typed it too, or said `--trust`.

    with trusting(trust, *typed): ...      what is read inside may name these, or anything if `trust`
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from evensphere.errors import InputError
from evensphere.untrusted import shown

_everything: ContextVar[bool] = ContextVar("everything", default=False)
_paths: ContextVar[frozenset[str]] = ContextVar("paths", default=frozenset())


@contextmanager
def trusting(everything: bool = False, *paths: str) -> Iterator[None]:
    """Inside, recipes that are read may name these import paths too, or any."""
    before = _everything.set(_everything.get() or everything), _paths.set(_paths.get() | set(paths))
    try:
        yield
    finally:
        _everything.reset(before[0])
        _paths.reset(before[1])


def check_trust(kind: str, path: str) -> None:
    """Refuse an import path that was read and that nobody has said to trust. kind: of part."""
    if not _everything.get() and path not in _paths.get():
        raise InputError(
            f"This recipe names code that is not evensphere's, {kind} = {shown(path)}, which would run on this "
            "machine; add --trust (in Python: trust=True) if you know whose it is."
        )
