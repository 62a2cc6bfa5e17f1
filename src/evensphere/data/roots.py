"""Where published data sets are kept, and how one gets there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from filelock import FileLock

from evensphere.disk import make_folder
from evensphere.errors import InputError


def roots_of(path: str | Path | None) -> list[Path]:
    """The folders to look for a data set in: the one the user names, else $EVENSPHERE_DATA and ~/.cache/evensphere."""
    if path is not None:
        return [Path(path).expanduser()]
    configured = os.environ.get("EVENSPHERE_DATA")
    return [*([Path(configured).expanduser()] if configured else []), Path.home() / ".cache" / "evensphere"]


@contextmanager
def downloading(name: str, root: Path, address: str) -> Iterator[None]:
    """A download of the data set `name` into `root`, by one process at a time; those that waited should look again.

    Raises InputError where it fails.
    """
    try:
        make_folder(root)
        with FileLock(root / f"{name}.lock"):
            yield
    except (OSError, HTTPException, RuntimeError) as error:
        reason = str(error) or type(error).__name__
        raise InputError(
            f"{name} could not be downloaded from {address} into {root} ({reason}); get it by other means and give its "
            "folder with --data PATH."
        ) from error
