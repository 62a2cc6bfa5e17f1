"""A disk that fails: stands in for `os` inside evensphere.disk, counts its calls, and has one of them go wrong."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evensphere import disk

ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO")
FAULTS = (
    *ERRORS,  # the call fails
    "partial write",  # half of the data is written, then the disk is full
    "power cut",  # the process is gone before the call; what was not brought to the disk is lost
    "power cut, names lost",  # and so is every name that was given or taken away since its folder was
)
_COUNTED = ("open", "write", "fsync", "close", "replace", "unlink", "mkdir", "ftruncate")


class PowerCut(BaseException):
    """The process is gone. Whoever goes on nevertheless, in a `finally` say, meets it again at the next call."""


class FaultyOs:
    """`os`, of whose counted calls number `at` (from 0) goes wrong; None counts only. calls: made so far."""

    def __init__(self, at: int | None = None, fault: str = "ENOSPC") -> None:
        self.at, self.fault, self.calls = at, fault, 0
        self._full = self._dead = False
        self._paths: dict[int, Path] = {}  # of the open descriptors
        self._unsynced: dict[int, int] = {}  # by inode: what the file's size was when it was last brought to the disk
        self._names: list[tuple[Path, Callable[[], None]]] = []  # (folder, how to undo) of what happened to names

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial(self._call, name, real) if name in _COUNTED else real

    def _call(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        if self._dead:
            raise PowerCut
        now = self.calls == self.at
        self.calls += 1
        if now and self.fault.startswith("power cut"):
            self._dead = True
            self._lose()
            raise PowerCut
        if self._full and name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if now and self.fault == "partial write" and name == "write":
            self._full = True
            descriptor, data = arguments
            arguments = descriptor, data[: len(data) // 2]
        elif now:
            number = getattr(errno, self.fault, errno.ENOSPC)
            if name == "close":
                real(*arguments)  # which gives the descriptor back whatever it says
            raise OSError(number, os.strerror(number))
        return self._noted(name, real, *arguments)

    def _noted(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        """The call itself; what it leaves to be lost is remembered."""
        if name in ("replace", "unlink", "mkdir") or (name == "open" and arguments[1] & os.O_CREAT):
            self._note_name(name, *map(Path, arguments[: 2 if name == "replace" else 1]))
        if name in ("write", "ftruncate") or (name == "open" and arguments[1] & os.O_TRUNC):
            path = self._paths.get(arguments[0]) if name != "open" else Path(arguments[0])
            if path is not None and path.exists():
                self._unsynced.setdefault(path.stat().st_ino, path.stat().st_size)
        result = real(*arguments)
        if name == "open":
            self._paths[result] = Path(arguments[0])
        if name == "fsync":
            opened = os.fstat(arguments[0])
            if stat.S_ISDIR(opened.st_mode):
                folder = self._paths[arguments[0]]
                self._names = [(where, undo) for where, undo in self._names if where != folder]
            else:
                self._unsynced.pop(opened.st_ino, None)
        return result

    def _note_name(self, name: str, path: Path, target: Path | None = None) -> None:
        changed = target or path
        before = changed.read_bytes() if changed.is_file() else None
        if name == "open" and before is not None:
            return

        def undo() -> None:
            if name == "mkdir":
                shutil.rmtree(path, ignore_errors=True)
            elif name == "replace":
                os.replace(changed, path)
            elif name == "open":
                path.unlink(missing_ok=True)
            if before is not None:
                changed.write_bytes(before)

        self._names.append((changed.parent, undo))

    def _lose(self) -> None:
        """What a power cut takes: data first, which is found by inode whatever its name is by now, then names."""
        folders = {path.parent for path in self._paths.values()} | set(self._paths.values())
        files = {file for folder in folders if folder.is_dir() for file in folder.iterdir() if file.is_file()}
        for file in files:
            if (inode := file.stat().st_ino) in self._unsynced:
                os.truncate(file, min(self._unsynced[inode], file.stat().st_size))
        if self.fault.endswith("names lost"):
            for _, undo in reversed(self._names):
                undo()


@contextmanager
def faulty_disk(monkeypatch: pytest.MonkeyPatch, at: int | None = None, fault: str = "ENOSPC") -> Iterator[FaultyOs]:
    """The block writes to a disk that fails (see FaultyOs)."""
    with monkeypatch.context() as patch:
        faulty = FaultyOs(at, fault)
        patch.setattr(disk, "os", faulty)
        yield faulty
