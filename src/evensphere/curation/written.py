"""What curation leaves on disk: tables for people, and pictures of images that are no files of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from evensphere.data.contact_sheet import as_picture
from evensphere.data.encoded import FileSource
from evensphere.data.source import Source, Subset
from evensphere.errors import InputError
from evensphere.rundir import atomic_write


def write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A csv file, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic_write(file, text.getvalue())


def new_folder(out: Path) -> None:
    """Make the folder. Raises InputError where that is impossible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write to {out}: {error.strerror}; choose another --out.") from error


def are_files(source: Source) -> bool:
    """Whether each image is a file of its own, which people can open."""
    while isinstance(source, Subset):
        source = source.source
    return isinstance(source, FileSource)


def export_picture(source: Source, i: int, file: Path) -> None:
    """Image i as a PNG of its own size: colour where there are three or four channels, else the first alone."""
    as_picture(source.read(i)).save(file)
