"""The disk: the only place where this package writes (tests/test_disk.py sees to that).

A file is whole or not there: it is written aside, brought to the disk, and renamed over the old one; then the folder is
brought to the disk, too, so that neither a kill nor a power cut leaves half of it. A line is appended whole, or taken
back. What cannot be written is a DiskError: one sentence that names the file, the reason and what to do.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from evensphere.errors import InputError

PART = ".part"  # what a file that is being written ends with

_AGAIN = "the same command again (`train` with --resume)"
_REASONS = {  # and what to do
    errno.ENOSPC: ("the disk is full", f"make room and give {_AGAIN}"),
    errno.EDQUOT: ("your disk quota is used up", f"make room and give {_AGAIN}"),
    errno.EIO: ("the disk reports an input/output error", f"have it checked, then give {_AGAIN}"),
    errno.EROFS: ("the file system is read-only", "make it writable or choose another place (--out)"),
    errno.EACCES: ("permission denied", "make it writable or choose another place (--out)"),
    errno.EPERM: ("permission denied", "make it writable or choose another place (--out)"),
}
# Folders that cannot be brought to the disk: those of some network file systems, and those that one may not list
_UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)


class DiskError(InputError, OSError):
    """A file cannot be written, and is as it was before. Nothing that was written earlier is lost."""

    def __init__(self, path: Path, error: OSError) -> None:
        self.reason, advice = _REASONS.get(
            error.errno or 0, (error.strerror or str(error), "choose another place (--out)")
        )
        super().__init__(f"Cannot write {path}: {self.reason}; {advice}.")


# --- whole files ------------------------------------------------------------------------------------------------------


def atomic_write(path: Path, data: bytes | memoryview | str) -> None:
    """Write a whole file or nothing. Raises DiskError."""
    with atomic_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


class FileAside:
    """A file that is being written. `write` takes bytes, all of them."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def write(self, data: bytes | memoryview) -> None:
        with _explained(self._path):
            _write_all(self._descriptor, data)


@contextmanager
def atomic_file(path: Path) -> Iterator[FileAside]:
    """`atomic_write` for what is too large to be in memory: written piece by piece, there when the block ends without
    an exception."""
    # a name of its own for each writer: two that write the same file must not write into each other's
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{PART}")
    with _explained(path):
        descriptor = _open(aside, os.O_TRUNC)
    try:
        try:
            yield FileAside(path, descriptor)
            with _explained(path):
                os.fsync(descriptor)
        finally:
            with _explained(path):
                os.close(descriptor)
        with _explained(path):
            os.replace(aside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise
    with _explained(path):
        _sync_folder(path.parent)


def clear_parts(folder: Path) -> None:
    """Remove what writers left behind in a folder that died while writing. For whoever alone writes there."""
    for file in folder.glob(f"*{PART}"):
        remove(file)


def check_writable(path: Path) -> None:
    """Find out whether a file can be written before there is something to write. Raises DiskError."""
    with _explained(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        trial = path.with_name(f"{path.name}.{os.getpid()}-trial{PART}")
        os.close(_open(trial, 0))
        os.unlink(trial)


# --- lines ------------------------------------------------------------------------------------------------------------


def append(path: Path, text: str) -> None:
    """Add to the end of a file, and to the disk. What fails is taken back; only of a process that dies may half of the
    text be left, which the reader must pass over and the next writer `truncate`. Raises DiskError."""
    with _explained(path):
        descriptor = _open(path, os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, text.encode())
                os.fsync(descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)
        if size == 0:
            _sync_folder(path.parent)


def truncate(path: Path, size: int) -> None:
    """Cut a file back to its first `size` bytes, which it must have. Raises DiskError."""
    with _explained(path):
        descriptor = _open(path, 0)
        try:
            assert size <= os.fstat(descriptor).st_size
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- folders and names ------------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there. Raises DiskError."""
    with _explained(path):
        if path.is_dir():
            return
        make_folder(path.parent)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not path.is_dir():  # else another process was quicker
                raise
        _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises DiskError."""
    with _explained(path), suppress(FileNotFoundError):
        os.unlink(path)
        _sync_folder(path.parent)


def rename(path: Path, name: str) -> None:
    """Give a file another name in its folder. Raises DiskError."""
    with _explained(path):
        os.replace(path, path.with_name(name))
        _sync_folder(path.parent)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for what nobody wants to keep; it is gone, with all that is in it, when the block ends."""
    with tempfile.TemporaryDirectory(prefix="evensphere-") as folder:
        yield Path(folder)


# --- the calls of the operating system --------------------------------------------------------------------------------


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise DiskError(path, error) from error


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | flags | getattr(os, "O_BINARY", 0), 0o666)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    left = memoryview(data)
    left = left.cast("B") if left.nbytes else memoryview(b"")  # which has no shape to be cast
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _UNSYNCED:
            raise
