"""Zip and tar files of images, read in place: nothing is ever unpacked to disk.

An archive is indexed once. After that, image i is so many bytes at a known place, read without moving a file position,
so that any number of threads and worker processes may read at the same time.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evensphere.data.decode import EXTENSIONS, EncodedImage
from evensphere.data.encoded import Channels, EncodedSource, as_text
from evensphere.data.listing import GroupBy, by_folders, splits_of
from evensphere.data.source import Source, Splits, UnreadableImage
from evensphere.errors import InputError

LARGEST_MEMBER = 500_000_000  # bytes; no picture, but perhaps a bomb


def archive(
    path: str | Path, channels: Channels = "auto", seed: int = 0, groups: GroupBy = None, bits: int = 8
) -> Splits:
    """The images in a .zip or .tar file, which has the shapes that a folder may have (see `folder`). One folder that
    holds everything else, as most archives have, is looked through.

    channels, seed, groups, bits: as for `folder`.

    Members with image names that cannot be read are named in `unlisted`: encrypted ones, links, devices, those of more
    than 500 MB, and names that lead out of the archive. Of members with one name the last counts, as when unpacking.
    Raises InputError for a file that is missing, damaged or compressed as a whole (.tar.gz).
    """
    file = Path(path).expanduser()
    images, unlisted = _find_images(file)
    names = sorted(images, key=os.fsencode)
    depth = _wrapping([*names, *(name for name, _ in unlisted if not _leads_out(name))])
    listing = by_folders(
        str(file),
        [as_text(name) for name in names],
        _without(names, depth),
        groups,
        [(as_text(name), reason) for name, reason in unlisted],
        _without([name for name, _ in unlisted], depth),
    )

    def make(name: str, numbers: Sequence[int], **known: Any) -> Source:
        return ArchiveSource(name, file, {names[i]: images[names[i]] for i in numbers}, **known)

    return splits_of(listing, make, channels, bits, seed)


class _Member(NamedTuple):
    """Where a member's bytes are. size: when decompressed. crc: checksum, or -1 for a tar's, which has none."""

    start: int
    stored: int
    size: int
    deflated: bool
    crc: int


class ArchiveSource(EncodedSource):
    """Some images of an archive, as {name: place}. known: the other arguments of EncodedSource."""

    def __init__(self, name: str, file: Path, members: dict[str, _Member], **known: Any) -> None:
        super().__init__(name, **known)
        self.file = file
        self.names = list(members)
        self.index = np.array(list(members.values()), dtype=np.int64)  # of _Member
        self._open_file()

    def _open_file(self) -> None:
        self._descriptor = os.open(self.file, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_descriptor"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_file()

    def __len__(self) -> int:
        return len(self.names)

    def open(self, i: int) -> EncodedImage:
        return io.BytesIO(_bytes_of(self._descriptor, _Member(*self.index[i].tolist())))

    def location(self, i: int) -> str:
        return as_text(self.names[i])


# --- names ------------------------------------------------------------------------------------------------------------


def _find_images(file: Path) -> tuple[dict[str, _Member], list[tuple[str, str]]]:
    """The images by name, and (name, reason) of those that cannot be read. Raises InputError if there are no images."""
    images: dict[str, _Member] = {}
    unlisted: list[tuple[str, str]] = []
    for original, member in _members(file):
        name = "/".join(part for part in original.split("/") if part not in ("", "."))
        if not name.lower().endswith(EXTENSIONS) or re.search(r"(^|/)\.(?!\./)", name):
            continue
        if _leads_out(original):
            unlisted.append((original, "its name leads out of the archive"))
        elif isinstance(member, str):
            unlisted.append((name, member))
        else:
            if images.pop(name, None) is not None:
                unlisted.append((name, "a later member has the same name"))
            images[name] = member
    if not images:
        raise InputError(_no_images(file, unlisted))
    return images, unlisted


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _no_images(file: Path, unlisted: Sequence[tuple[str, str]]) -> str:
    if not unlisted:
        return f"{file} holds no image files ({' '.join(EXTENSIONS)}); check the path."
    name, reason = unlisted[0]
    return f"{file} holds {len(unlisted)} image files and none can be read, the first being {as_text(name)} ({reason})."


def _wrapping(names: Sequence[str]) -> int:
    """How many folders, one in the other, hold everything."""
    shared = takewhile(lambda pair: pair[0] == pair[1], zip(min(names), max(names), strict=False))
    return sum(letter == "/" for letter, _ in shared)


def _without(names: Sequence[str], depth: int) -> list[str]:
    return ["/".join(name.split("/")[depth:]) for name in names]


# --- the index --------------------------------------------------------------------------------------------------------


def _members(file: Path) -> Iterator[tuple[str, _Member | str]]:
    """(name, where it is or why it cannot be read) of every member that is no folder, in the archive's order."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(4)
            opened.seek(0)
            if beginning.startswith(b"\x1f\x8b"):
                raise InputError(
                    f"{file} is compressed as a whole, so that no image can be read without all those before it; "
                    "decompress it (gunzip --keep FILE) and give the .tar."
                )
            is_zip = beginning == b"PK\3\4" or file.suffix.lower() == ".zip"
            yield from _zip_members(opened) if is_zip else _tar_members(opened)
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}); check the path.") from error
    except (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no complete zip or tar file ({error}); get it again.") from error


def _zip_members(opened: Any) -> Iterator[tuple[str, _Member | str]]:
    with zipfile.ZipFile(opened) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                yield (
                    info.filename,
                    _zip_problem(info)
                    or _Member(
                        info.header_offset, info.compress_size, info.file_size, info.compress_type != 0, info.CRC
                    ),
                )


def _zip_problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & 0x1:
        return "encrypted; unpack it with its password"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which is not followed"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"compressed by method {info.compress_type}; only stored and deflated members can be read"
    if not 0 <= info.header_offset < 2**62:
        return "damaged in the archive (no header)"
    return _size_problem(max(info.file_size, info.compress_size))


def _tar_members(opened: Any) -> Iterator[tuple[str, _Member | str]]:
    with tarfile.open(fileobj=opened, mode="r:") as archive:
        before = -1
        while (info := archive.next()) is not None:
            if archive.offset <= before:  # by a negative size: older Pythons would go round in circles
                raise tarfile.ReadError("a damaged header")
            before = archive.offset
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep a kilobyte for each
            if not info.isdir():
                yield info.name, _tar_problem(info) or _Member(info.offset_data, info.size, info.size, False, -1)
        opened.seek(archive.offset)
        if opened.read(512).strip(b"\0"):
            raise tarfile.ReadError("a damaged header")  # where tarfile only stops


def _tar_problem(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "a link, which is not followed"
    if not info.isreg() or info.issparse():
        return "not a plain file"
    return _size_problem(info.size)


def _size_problem(size: int) -> str | None:
    return f"larger than {LARGEST_MEMBER // 1_000_000} MB" if size > LARGEST_MEMBER else None


# --- reading ----------------------------------------------------------------------------------------------------------

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip's member: signature, and the lengths of its name and extra field


def _bytes_of(descriptor: int, member: _Member) -> bytes:
    """A member's content. Raises UnreadableImage where it is not what the index said."""
    if member.crc == -1:
        return _read(descriptor, member.start, member.stored)
    signature, name, extra = _LOCAL_HEADER.unpack(_read(descriptor, member.start, _LOCAL_HEADER.size))
    if signature != b"PK\3\4":
        raise UnreadableImage("damaged in the archive (no header)")
    content = _read(descriptor, member.start + _LOCAL_HEADER.size + name + extra, member.stored)
    if member.deflated:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1)
        except zlib.error as error:
            raise UnreadableImage(f"damaged in the archive ({error})") from error
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise UnreadableImage("damaged in the archive (wrong size or checksum)")
    return content


def _read(descriptor: int, start: int, size: int) -> bytes:
    content = os.pread(descriptor, size, start)
    if len(content) < size:
        raise UnreadableImage("cut off: the archive ends before it")
    return content
