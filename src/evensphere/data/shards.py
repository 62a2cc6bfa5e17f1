"""WebDataset shards: tar files of images, read from beginning to end, from a disk or over the web.

Whatever a shard holds beside images (labels, captions, metadata) is passed over. Nothing is unpacked to the disk, so a
member's name is no more than a name; nothing is run: addresses are files or http(s), never a command.
"""

from __future__ import annotations

import glob
import lzma
import os
import re
import tarfile
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from itertools import chain
from pathlib import Path
from typing import IO

from evensphere.data.decode import EXTENSIONS
from evensphere.data.encoded import as_text
from evensphere.data.kinds import TARS
from evensphere.data.source import Splits, UnreadableImage
from evensphere.data.stream import SHUFFLE_BUFFER, Sample, Stream
from evensphere.errors import InputError

_WEB = ("http://", "https://")
_LONGEST_LABEL = 20  # digits
_TIMEOUT = 60  # seconds without a byte from the web
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, HTTPException)


def shards(
    path: str | Path | Sequence[str],
    extension: str | None = None,
    samples: int | None = None,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    channels: int = 3,
) -> Splits:
    """Tar files as one stream of images to pretrain on; there is nothing in it to evaluate with.

    path: tar files (.tar, .tar.gz, .tgz), a folder of them, or http(s) addresses; patterns with braces
        (train-{000..099}.tar, {train,extra}.tar) and, on a disk, with * ? [ ]. Their order is that of their names.
    extension: of the members that are images, such as "jpg" or "left.png"; needed where a sample has several images.
        None takes every member that is called like an image.
    samples: images an epoch; None counts those in the shards, which takes files on a disk. Give it for the web.
    shuffle_buffer, channels: see Stream; images are converted to 3 channels (RGB) or 1 (grey).

    A shard that breaks off is read as far as it goes and listed in skipped.csv. A web server that breaks off stops the
    run, which can be resumed. Raises InputError for a path that is not there, and for fewer than two images.
    """
    patterns = [str(path)] if isinstance(path, str | Path) else [str(one) for one in path]
    if not patterns:
        raise InputError("An empty list of shards was given; give one at least.")
    files = _files(patterns)
    ending = None if extension is None else "." + extension.lower().lstrip(".")
    skipped: dict[str, str] = {}
    if samples is None:
        samples = _counted(files, ending, skipped)
    stream = ShardStream(", ".join(patterns), files, samples, channels, shuffle_buffer, ending)
    stream.skipped |= skipped
    return Splits(stream)


class ShardStream(Stream):
    """Images of tar files. files: paths or http(s) addresses. ending: of the members that are images; None knows them
    by the usual ones."""

    def __init__(
        self, name: str, files: Sequence[str], samples: int, channels: int, shuffle_buffer: int, ending: str | None
    ) -> None:
        super().__init__(name, _names(files), samples, channels, shuffle_buffer)
        self.files, self.ending = list(files), ending

    def read_shard(self, k: int) -> Iterator[Sample]:
        try:
            with _opened(self.files[k]) as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Member) as tar:
                for member in _images(tar, self.files[k], self.ending):
                    content = tar.extractfile(member)
                    assert content is not None, "regular members have content"
                    yield Sample(f"{self.shards[k]}/{as_text(member.name)}", content.read())
        except _DAMAGE as error:
            if self.files[k].startswith(_WEB):
                raise InputError(
                    f"{self.files[k]} cannot be read ({_reason(error)}); once it can, go on with --resume."
                ) from error
            raise UnreadableImage(_reason(error)) from error

    def class_counts(self) -> dict[int, int]:
        """How many samples of each class the shards tell of, by the class's number, in ascending order: their members
        called KEY.cls hold it, as WebDataset has it. Training never asks; empty where there are none. Raises InputError
        for a label that is no number, and for shards on the web, which would have to be fetched for it."""
        counts: Counter[int] = Counter()
        for file in self.files:
            if file.startswith(_WEB):
                raise InputError(f"{file} would have to be fetched to count its classes; count them where it lies.")
            with suppress(*_DAMAGE), tarfile.open(file, tarinfo=_Member) as tar:
                counts.update(_label(tar, member) for member in tar if member.isreg() and member.name.endswith(".cls"))
        return dict(sorted(counts.items()))


def _label(tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    content = tar.extractfile(member)
    assert content is not None, "regular members have content"
    text = content.read(_LONGEST_LABEL + 1)
    if len(text) > _LONGEST_LABEL or not text.strip().isdigit():
        raise InputError(f"{as_text(member.name)} in {tar.name!r} is no class's number; write a whole number into it.")
    return int(text)


class _Member(tarfile.TarInfo):
    """tarfile takes a damaged header for the end of the archive; only an empty block is one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError("the archive is damaged or cut off") from error


def _images(tar: tarfile.TarFile, file: str, ending: str | None) -> Iterator[tarfile.TarInfo]:
    """The members that are images. Raises InputError where a sample has several and nobody said which.

    A sample is what has one name up to the first dot (WebDataset); names that begin with a dot are nobody's.
    """
    before = None
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        if not member.isreg() or name.startswith(".") or not name.lower().endswith(ending or EXTENSIONS):
            continue
        key = (folder, name.partition(".")[0])
        if ending is None and key == before:
            raise InputError(
                f"{file} holds several images called {as_text(key[1])}, the second being {as_text(member.name)}; "
                "say which ones are meant, such as with --set data.extension=jpg."
            )
        before = key
        yield member


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file.startswith(_WEB):
        with urllib.request.urlopen(file, timeout=_TIMEOUT) as answer:
            yield answer
    else:
        with open(file, "rb") as opened:
            yield opened


def _counted(files: Sequence[str], ending: str | None, skipped: dict[str, str]) -> int:
    """How many images the shards hold, by their headers alone; `skipped` is told which break off."""
    if distant := [file for file in files if file.startswith(_WEB)]:
        raise InputError(f"Nobody counts what {distant[0]} holds; say how many images make an epoch: data.samples=N.")
    total = 0
    for file, name in zip(files, _names(files), strict=True):
        try:
            with tarfile.open(file, tarinfo=_Member) as tar:
                for _ in _images(tar, file, ending):
                    total += 1
        except _DAMAGE as error:
            skipped[name] = _reason(error)
    if total < 2:
        raise InputError(
            f"The {len(files)} shard(s) given, the first being {files[0]}, hold {total} image(s); training compares "
            f"images and needs at least two ({' '.join([ending] if ending else EXTENSIONS)})."
        )
    return total


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# --- which files ------------------------------------------------------------------------------------------------------


def _files(patterns: Sequence[str]) -> list[str]:
    """The files and addresses that patterns stand for, each once, in the order of their names."""
    found = chain.from_iterable(_matches(one) for pattern in patterns for one in _braces_expanded(pattern))
    return sorted(dict.fromkeys(found), key=os.fsencode)


def _matches(pattern: str) -> list[str]:
    if pattern.startswith(_WEB):
        return [pattern]
    if "://" in pattern or pattern.startswith("pipe:"):
        raise InputError(f"Shards at {pattern} were given; they are read from files and over http(s) only.")
    here = Path(pattern).expanduser()
    if here.is_dir():
        found = [str(file) for file in here.iterdir() if _is_tar(file.name)]
    elif here.exists():
        found = [str(here)]
    else:
        found = [file for file in glob.glob(str(here), recursive=True) if _is_tar(os.path.basename(file))]
    if not found:
        raise InputError(f"There are no shards at {pattern} ({' '.join(TARS)}); check the path.")
    return found


def _is_tar(name: str) -> bool:
    return name.lower().endswith(TARS) and not name.startswith(".")


def _braces_expanded(pattern: str) -> list[str]:
    """a{08..10}.tar -> a08.tar, a09.tar, a10.tar; {a,b}.tar -> a.tar, b.tar."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, words = match.groups()
    if words is None:
        choices = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
        if not choices:
            raise InputError(f"{match[0]} in {pattern} stands for nothing; write the smaller number first.")
    else:
        choices = words.split(",")
    before, after = pattern[: match.start()], pattern[match.end() :]
    return [file for choice in choices for file in _braces_expanded(before + choice + after)]


def _names(files: Sequence[str]) -> list[str]:
    """What the shards are called: addresses without what follows '?', which may be a secret; paths below the folder
    that holds them all."""
    local = [os.path.dirname(os.path.abspath(file)) for file in files if not file.startswith(_WEB)]
    top = os.path.commonpath(local) if local else ""
    return [file.partition("?")[0] if file.startswith(_WEB) else as_text(os.path.relpath(file, top)) for file in files]
