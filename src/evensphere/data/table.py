"""Tables of images: csv, tsv or parquet, with a row for each image and columns for its file, class, group and part.

A parquet table may hold the images themselves, encoded, as Hugging Face writes them.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from evensphere.data.decode import EncodedImage
from evensphere.data.encoded import Channels, EncodedSource, FileSource, as_text
from evensphere.data.kinds import VALIDATION_NAMES
from evensphere.data.listing import Label, Listing, splits_of
from evensphere.data.source import Source, Splits
from evensphere.errors import InputError
from evensphere.values import free_memory

# looked for in this order where no column is named
_IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name")
_LABEL_COLUMNS = ("label", "class")
_SPLIT_COLUMNS = ("split",)

_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(VALIDATION_NAMES, "validation"),
    "test": "test",
    "probe": "probe",
}


def table(
    path: str | Path,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    root: str | Path | None = None,
    channels: Channels = "auto",
    seed: int = 0,
    bits: int = 8,
) -> Splits:
    """The images of a table's rows.

    path: a .csv, .tsv or .parquet file. Cells are text, whatever they look like.
    image_column: the files' paths, relative to `root` (None: the table's folder); in parquet perhaps the encoded images
        themselves, bytes or Hugging Face's {bytes, path}. None takes the first there is of path, image, file, filename,
        file_name.
    label_column: classes, by name or whole number. None takes label or class, if there is one; "" takes none. A row of
        the training part without a label leaves them all without use.
    group_column: rows with the same value are takes of one thing (a burst, a track, a patient).
    split_column: train, val, test (or probe) for each row. None takes split, if there is one; "" takes none. Without
        one, a labelled table is split 60/20/20 by class for evaluation, drawn with `seed`.
    channels: 1 (grey), 3 (RGB), 4 (RGBA) or more; "auto" looks at some images. bits: 8, or 16 to keep the depth of
        images that have it (see `EncodedSource`).

    Images are in the order of their paths' bytes; classes too, except that numbers are in theirs. Encoded images are
    kept in memory as they are. Rows without an image are passed over, and named in `unlisted`.
    Raises InputError for a table that cannot be read, columns that it lacks, and a file that two rows name.
    """
    file = Path(path).expanduser()
    names = _column_names(file)
    image = _column(file, names, "image", image_column, _IMAGE_COLUMNS)
    if image is None:
        raise InputError(
            f"{file} has no column for the images' files; its columns are {_spell(names)}; name one with "
            "--set data.image_column=NAME."
        )
    label = _column(file, names, "label", label_column, _LABEL_COLUMNS)
    group = _column(file, names, "group", group_column, ())
    split = _column(file, names, "split", split_column, _SPLIT_COLUMNS)
    read = _read(file, image, *(name for name in (label, group, split) if name is not None))
    images = _images(file, read[image])
    labels = None if label is None else _labels(file, label, read[label])
    groups = None if group is None else [text or None for text in _texts(read[group])]
    parts = None if split is None else _parts(file, split, read[split])
    listing = Listing(
        name=str(file),
        locations=images.locations,
        labels=None if labels is None else [labels[row] for row in images.rows],
        groups=None if groups is None else [groups[row] for row in images.rows],
        parts=None if parts is None else [parts[row] for row in images.rows],
        class_names=None if label is None else _names_in_metadata(file, label),
        unlisted=images.unlisted,
    )
    folder = file.parent if root is None else Path(root).expanduser()

    def make(name: str, numbers: Sequence[int], **known: Any) -> Source:
        if images.paths is not None:
            return FileSource(name, folder, [images.paths[i] for i in numbers], **known)
        rows, locations = [images.rows[i] for i in numbers], [images.locations[i] for i in numbers]
        return ColumnSource(name, images.encoded, rows, locations, **known)

    return splits_of(listing, make, channels, bits, seed)


class ColumnSource(EncodedSource):
    """Encoded images in some rows of a column of bytes, which is in memory. known: the other arguments of
    EncodedSource."""

    def __init__(
        self, name: str, column: pa.ChunkedArray, rows: Sequence[int], locations: Sequence[str], **known: Any
    ) -> None:
        super().__init__(name, **known)
        self.column, self.rows, self.locations = column, list(rows), list(locations)

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, i: int) -> EncodedImage:
        return io.BytesIO(self.column[self.rows[i]].as_py())

    def location(self, i: int) -> str:
        return self.locations[i]


# --- the images -------------------------------------------------------------------------------------------------------


class _Images(NamedTuple):
    """The rows that have an image, in the images' order; their paths, or the column that holds the encoded images."""

    rows: list[int]
    locations: list[str]
    paths: list[str] | None
    encoded: Any
    unlisted: list[tuple[str, str]]


def _images(file: Path, column: pa.ChunkedArray) -> _Images:
    encoded, names = _encoded(file, column)
    filled = [bool(name) for name in names] if encoded is None else encoded.is_valid().to_pylist()
    rows = [row for row, there in enumerate(filled) if there]
    unlisted = [(f"{file.name}[{row}]", "the row has no image") for row, there in enumerate(filled) if not there]
    named = all(names[row] for row in rows) and (encoded is None or len({names[row] for row in rows}) == len(rows))
    if not named:  # encoded, and the names that came with them do not tell them apart
        return _Images(rows, [f"{file.name}[{row}]" for row in rows], None, encoded, unlisted)
    rows.sort(key=lambda row: os.fsencode(names[row]))
    for one, other in pairwise(rows):
        if names[one] == names[other]:
            raise InputError(
                f"{as_text(names[one])} is in {file} more than once, in its rows {one + 1} and {other + 1}; give each "
                "image one row."
            )
    paths = None if encoded is not None else [names[row] for row in rows]
    return _Images(rows, [as_text(names[row]) for row in rows], paths, encoded, unlisted)


def _encoded(file: Path, column: pa.ChunkedArray) -> tuple[Any, list[str]]:
    """(the column of encoded images or None, the images' names)"""
    if file.suffix.lower() != ".parquet":
        return None, _texts(column)
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column, [""] * len(column)
    if not pa.types.is_struct(kind):
        return None, _texts(column)
    fields = {kind.field(i).name for i in range(kind.num_fields)}
    names = _texts(pc.struct_field(column, "path")) if "path" in fields else [""] * len(column)
    encoded = pc.struct_field(column, "bytes") if "bytes" in fields else None
    return (None if encoded is None or encoded.null_count == len(encoded) else encoded), names


# --- the other columns ------------------------------------------------------------------------------------------------


def _labels(file: Path, name: str, column: pa.ChunkedArray) -> list[Label]:
    """Whole numbers where all are, else names. Empty cells and negative numbers are no labels."""
    texts = _texts(column)
    if pa.types.is_floating(column.type):
        texts = [text.removesuffix(".0") for text in texts]
    if all(re.fullmatch(r"-?[0-9]{1,18}", text) for text in texts if text):
        return [int(text) if text and int(text) >= 0 else None for text in texts]
    if pa.types.is_floating(column.type):
        raise InputError(f"The column {name} of {file} holds fractions; classes are whole numbers or names.")
    return [text or None for text in texts]


def _parts(file: Path, name: str, column: pa.ChunkedArray) -> list[str | None]:
    texts = _texts(column)
    unknown = sorted({text for text in texts if text and text.lower() not in _PARTS})
    if unknown:
        raise InputError(
            f"The column {name} of {file} holds {as_text(unknown[0])!r}; a column that divides the images holds train, "
            "val and test; name another with --set data.split_column=NAME, or none with --set 'data.split_column=\"\"'."
        )
    return [_PARTS.get(text.lower()) for text in texts]


def _names_in_metadata(file: Path, name: str) -> dict[int, str] | None:
    """The class names that Hugging Face writes into a parquet file's metadata."""
    if file.suffix.lower() != ".parquet":
        return None
    metadata = pyarrow.parquet.read_schema(file).metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][name]["names"]
        return dict(enumerate(map(str, names)))
    except (KeyError, ValueError, TypeError):
        return None


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Every cell as text, "" where there is none; a file's name need not be valid text."""
    return [_text(value) for value in column.to_pylist()]


def _text(value: object) -> str:
    if value is None or value != value:  # not a number
        return ""
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


# --- reading ----------------------------------------------------------------------------------------------------------


def _column_names(file: Path) -> list[str]:
    with _readable(file):
        if file.suffix.lower() == ".parquet":
            names = pyarrow.parquet.read_schema(file).names
        else:
            with pyarrow.csv.open_csv(file, parse_options=_csv(file)) as reader:
                names = reader.schema.names
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"{file} has more than one column called {as_text(twice[0])!r}; give each a name of its own.")
    return list(names)


def _column(file: Path, names: list[str], what: str, wanted: str | None, usual: Sequence[str]) -> str | None:
    """The column that is wanted, or else the first usual one there is."""
    if wanted is None:
        return next((name for name in usual if name in names), None)
    if wanted and wanted not in names:
        raise InputError(f"{file} has no column {wanted!r} ({what}_column); its columns are {_spell(names)}.")
    return wanted or None


def _spell(names: Sequence[str]) -> str:
    return ", ".join(as_text(name) for name in names)


def _read(file: Path, image: str, *others: str) -> dict[str, pa.ChunkedArray]:
    names = list(dict.fromkeys([image, *others]))
    with _readable(file):
        if file.suffix.lower() == ".parquet":
            _check_memory(file, image)
            with pyarrow.parquet.ParquetFile(file) as parquet:
                read = parquet.read(columns=names)
        else:
            # bytes: what looks like a number or a formula stays what was written, and names need not be valid text
            bytes_only = pyarrow.csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False
            )
            read = pyarrow.csv.read_csv(file, parse_options=_csv(file), convert_options=bytes_only)
    return {name: read.column(name) for name in names}


def _csv(file: Path) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True)


def _check_memory(file: Path, image: str) -> None:
    """Encoded images are read at once: parquet cannot give one row without decompressing thousands."""
    metadata = pyarrow.parquet.read_metadata(file)
    places = product(range(metadata.num_row_groups), range(metadata.num_columns))
    chunks = (metadata.row_group(group).column(column) for group, column in places)
    size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == image)
    free = free_memory()
    if size > free:
        raise InputError(
            f"The images in {file} take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free; unpack them "
            "into a folder, or into tar shards, which are read as they are needed."
        )


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(f"The table {file} cannot be read ({reason}); give a csv, tsv or parquet file.") from error
