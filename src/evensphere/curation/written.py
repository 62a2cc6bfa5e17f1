"""What curation leaves on disk: tables for people, and pictures of images that are no files of their own."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from evensphere.data.contact_sheet import as_picture
from evensphere.data.encoded import FileSource
from evensphere.data.source import Source, Subset
from evensphere.disk import atomic_write
from evensphere.spreadsheet import Cell, to_csv


def write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    """A csv file, whole or not at all."""
    atomic_write(file, to_csv(header, rows))


def are_files(source: Source) -> bool:
    """Whether each image is a file of its own, which people can open."""
    while isinstance(source, Subset):
        source = source.source
    return isinstance(source, FileSource)


def export_picture(source: Source, i: int, file: Path) -> None:
    """Image i as a PNG of its own size: colour where there are three or four channels, else the first alone."""
    png = io.BytesIO()
    as_picture(source.read(i)).save(png, format="PNG")
    atomic_write(file, png.getvalue())
