"""Tables for people, as csv: written so that no spreadsheet runs what is in a cell, and read back as they were.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and formulas can fetch and send. A file may well
be called `=HYPERLINK(...).png`. Such a text gets an apostrophe in front, which spreadsheets know as "this is text";
so does one that begins with an apostrophe, so that reading can take it away again. Numbers are left alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from evensphere.untrusted import IMAGES, read_bytes

# the last four are the wide forms that East Asian keyboards write, which spreadsheets take for the first four
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_MARK = "'"
_LONGEST_CELL = 1_000_000  # characters

Cell = str | int | float | None


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> bytes:
    """The table as UTF-8, one row a line. None is an empty cell.

    Every text is quoted: some spreadsheets part cells at semicolons too, others rows at a lone carriage return. What
    is no text (half of a surrogate pair, which stands for a byte in a file's name) is spelled.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([neutralised(name) for name in header])
    writer.writerows([neutralised(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_csv(file: Path) -> list[dict[str, str]]:
    """The rows of a table that `to_csv` wrote, by their columns; cells that a row lacks are empty.

    Raises OSError where the file cannot be read, ValueError where it is no such table.
    """
    text = read_bytes(file, IMAGES).decode("utf-8", "replace")
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        rows = [[original(cell) for cell in row] for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error as error:
        raise ValueError(f"{file} is no table ({error})") from error
    finally:
        csv.field_size_limit(before)
    if not rows:
        return []
    header, *cells = rows
    return [dict(zip(header, row + [""] * (len(header) - len(row)), strict=False)) for row in cells]


def neutralised(cell: str) -> str:
    """The cell as text that no spreadsheet runs."""
    return _MARK + cell if cell.startswith((*_FORMULA, _MARK)) else cell


def original(cell: str) -> str:
    """The cell that `neutralised` was given."""
    return cell[1:] if cell.startswith(_MARK) and cell[1:].startswith((*_FORMULA, _MARK)) else cell
