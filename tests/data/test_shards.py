"""Tar shards: whatever a tar can hold, read as WebDataset reads it, and nothing lost without a word."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest
from PIL import Image
from tests.data.image_files import class_folders
from tests.data.stored import png_files, write_shards
from webdataset.tariterators import group_by_keys, tar_file_iterator

from evensphere.data.shards import ShardStream, shards
from evensphere.data.source import Splits
from evensphere.data.stream import Sample
from evensphere.errors import InputError


def png(colour: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (6, 5), (colour, 0, 0)).save(file, "png")
    return file.getvalue()


def write_tar(file: Path, members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def stream_of(path: str | Path | list[str], **options: object) -> ShardStream:
    splits = shards(path, **options)  # type: ignore[arg-type]
    assert isinstance(splits.pretrain, ShardStream)
    assert splits == Splits(splits.pretrain)
    return splits.pretrain


def in_order(stream: ShardStream) -> list[Sample]:
    return [sample for k in range(len(stream.shards)) for sample in stream.read_shard(k)]


def names(stream: ShardStream) -> list[str]:
    return [sample.location for sample in in_order(stream)]


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_they_hold_what_webdataset_finds_in_them(tmp_path: Path, ending: str) -> None:
    images = class_folders(tmp_path / "images", cat=4, dog=5)
    folder = write_shards(tmp_path / "shards", png_files(images), 4, ending)
    stream = stream_of(folder)
    assert stream.shards == [f"shard-00000{k}.{ending}" for k in range(3)]
    assert len(stream) == 9
    theirs = [one for shard in stream.shards for one in as_webdataset_reads(folder / shard)]
    assert [(one.location.partition("/")[2].removesuffix(".png"), one.data) for one in in_order(stream)] == theirs


def as_webdataset_reads(file: Path) -> list[tuple[str, bytes]]:
    with file.open("rb") as opened:
        members = ({"__url__": file.name, **member} for member in tar_file_iterator(opened))
        return [(sample["__key__"], sample["png"]) for sample in group_by_keys(members)]


def test_only_images_are_taken(tmp_path: Path) -> None:
    file = write_tar(
        tmp_path / "a.tar",
        {
            "1.cls": b"3",
            "1.JPG": b"x",
            "1.json": b"{}",
            "._2.jpg": b"",
            "b/.hidden.png": b"",
            "b/2.tiff": b"",
            "3": b"",
        },
    )
    with tarfile.open(file, "a") as tar:
        for name, kind in (
            ("folder.png", tarfile.DIRTYPE),
            ("link.png", tarfile.SYMTYPE),
            ("pipe.png", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert names(stream_of(file)) == ["a.tar/1.JPG", "a.tar/b/2.tiff"]


def test_a_sample_with_several_images_must_say_which(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", {f"{k}.{kind}": b"" for k in range(3) for kind in ("jpg", "mask.png", "cls")})
    with pytest.raises(
        InputError, match=r"several images called 0, the second being 0\.mask\.png; .*data\.extension=jpg"
    ):
        stream_of(file)
    assert names(stream_of(file, extension="jpg")) == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar/2.jpg"]
    assert names(stream_of(file, extension=".MASK.png")) == [f"a.tar/{k}.mask.png" for k in range(3)]
    unsampled = stream_of(file, samples=3)  # nobody has looked into the shards yet
    with pytest.raises(InputError, match="several images called 0"):
        list(unsampled.epoch(0, 0))
    with pytest.raises(InputError, match=r"hold 0 image\(s\)"):
        stream_of(file, extension="webp")


def test_labels_are_counted_on_request(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", [(f"{i:02}", png(i)) for i in range(8)], per_shard=3)
    stream = stream_of(folder)
    assert stream.class_counts() == {0: 3, 1: 3, 2: 2}
    assert stream_of(write_tar(tmp_path / "plain.tar", {"a.png": png(1), "b.png": png(2)})).class_counts() == {}
    named = stream_of(write_tar(tmp_path / "named.tar", {"a.png": png(1), "b.png": png(2), "a.cls": b"ant"}))
    with pytest.raises(InputError, match=r"a\.cls in .* is no class's number"):
        named.class_counts()


def test_shards_may_have_equal_names_inside(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write_tar(tmp_path / place / "a.tar", {"1.png": b"", "2.png": b""})
    stream = stream_of(f"{tmp_path}/*/a.tar")
    assert names(stream) == ["x/a.tar/1.png", "x/a.tar/2.png", "y/a.tar/1.png", "y/a.tar/2.png"]
    assert len(stream) == 4


def test_names_are_only_names(tmp_path: Path) -> None:
    """Members that would climb out of a folder, or make no valid text, are images like others, and write nothing."""
    home = tmp_path / "home"
    file = write_tar(home / "a.tar", {"../up.png": png(1), "/abs.png": png(2), "caf\udce9\n.png": png(3)})
    assert names(stream_of(file)) == ["a.tar/../up.png", "a.tar//abs.png", "a.tar/caf\\xe9\\x0a.png"]
    assert [found.name for found in tmp_path.rglob("*")] == ["home", "a.tar"]
    assert not Path("/abs.png").exists()


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Three images of 300 bytes: their headers and their contents fill a block of 512 each."""
    return write_tar(tmp_path / "whole.tar", {f"{k}.png": png(k).ljust(300) for k in range(3)})


@pytest.mark.parametrize("length", [*range(0, 3585, 128), 10, 530, 1540, 3000])
def test_a_shard_that_was_cut_off_gives_what_is_left_of_it(whole: Path, length: int) -> None:
    """Cut between two members, inside a header, inside an image: what came before is used, and the reason listed."""
    left = sum(length >= 1024 * k + 512 + 300 for k in range(3))
    (whole.parent / "cut.tar").write_bytes(whole.read_bytes()[:length])
    stream = stream_of(whole.parent)
    broken = length < 3072 + 512  # an empty block is the end
    assert stream.skipped.keys() == ({"cut.tar"} if broken else set()), "known before training"
    assert len(stream) - 3 in (left, left + 1), "an image that breaks off may be counted, since its header is whole"
    found = [sample.location for sample in stream.epoch(0, 0)]
    assert set(found) == {f"whole.tar/{k}.png" for k in range(3)} | {f"cut.tar/{k}.png" for k in range(left)}
    assert all(stream.skipped.values())


def test_a_damaged_header_is_not_taken_for_the_end(whole: Path) -> None:
    data = bytearray(whole.read_bytes())
    data[1024 + 10] ^= 0xFF
    whole.write_bytes(data)
    write_tar(whole.with_name("b.tar"), {"1.png": png(1)})
    stream = stream_of(whole.parent)
    assert len(stream) == 2
    assert stream.skipped == {"whole.tar": "the archive is damaged or cut off"}
    assert sorted(sample.location for sample in stream.epoch(0, 0)) == ["b.tar/1.png", "whole.tar/0.png"]


def test_a_compressed_shard_that_was_cut_off(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar.gz", {f"{k}.png": bytes(range(256)) * k for k in range(1, 9)}, "w:gz")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:-30])
    text = tmp_path / "text.tar"
    text.write_bytes(b"not found " * 100)
    stream = stream_of(tmp_path)
    assert stream.skipped.keys() == {"cut.tar.gz", "text.tar"}
    found = {sample.location for sample in stream.epoch(0, 0)}
    assert {f"whole.tar.gz/{k}.png" for k in range(1, 9)} <= found
    assert "cut.tar.gz/1.png" in found


def test_a_shard_that_vanishes_is_passed_over(whole: Path) -> None:
    other = write_tar(whole.with_name("other.tar"), {"1.png": png(1)})
    stream = stream_of(whole.parent)
    other.unlink()
    assert len(list(stream.epoch(0, 0))) == 4, "a second pass begins"
    assert stream.skipped == {"other.tar": "No such file or directory"}


# --- which files ------------------------------------------------------------------------------------------------------


def test_patterns(tmp_path: Path) -> None:
    for name in ("a-8.tar", "a-9.tar", "a-10.tar", "b-08.tar", "b-09.tar.gz", "c.tgz", ".d.tar", "e.txt"):
        mode: Literal["w", "w:gz"] = "w:gz" if name.endswith("gz") else "w"
        write_tar(tmp_path / name, {"1.png": b""}, mode)

    def found(*patterns: str, samples: int = 1) -> list[str]:
        return stream_of([f"{tmp_path}/{pattern}" for pattern in patterns], samples=samples).shards

    assert found("a-{8..10}.tar") == ["a-10.tar", "a-8.tar", "a-9.tar"]
    assert found("{a-9,b-{08..08}}.tar") == ["a-9.tar", "b-08.tar"]
    assert found("a-*.tar", "a-9.tar", "?-08.tar") == ["a-10.tar", "a-8.tar", "a-9.tar", "b-08.tar"]
    assert found("") == ["a-10.tar", "a-8.tar", "a-9.tar", "b-08.tar", "b-09.tar.gz", "c.tgz"]
    assert found("e.txt") == ["e.txt"], "whoever names a file means it"
    for pattern in ("a-{08..09}.tar", "z*.tar", "nowhere"):
        with pytest.raises(InputError, match="There are no shards at"):
            found(pattern)
    with pytest.raises(InputError, match="write the smaller number first"):
        found("a-{9..8}.tar")


@pytest.mark.parametrize("address", ["pipe:cat a.tar", "s3://bucket/a.tar", "file:///a.tar", "gs://b/{0..3}.tar"])
def test_addresses_are_files_or_the_web(address: str) -> None:
    with pytest.raises(InputError, match=r"read from files and over http\(s\) only"):
        shards(address, samples=10)


# --- the web ----------------------------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_shards_over_the_web_are_the_shards_on_the_disk(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", png_files(class_folders(tmp_path / "images", a=5, b=6)), 4)
    local = stream_of(folder)
    with served(folder) as address:
        with pytest.raises(InputError, match=r"how many images make an epoch: data\.samples=N"):
            shards(f"{address}/shard-000000.tar")
        distant = stream_of(f"{address}/shard-{{000000..000002}}.tar?token=secret", samples=11)
        assert [sample.data for sample in distant.epoch(0, 1)] == [sample.data for sample in local.epoch(0, 1)]
        assert distant.shards[1] == f"{address}/shard-000001.tar", "no secret is written down"
        gone = stream_of(f"{address}/gone.tar", samples=11)
        with pytest.raises(InputError, match=r"gone\.tar cannot be read \(.*404.*\); once it can, go on with --resume"):
            list(gone.epoch(0, 0))
    with pytest.raises(InputError, match="Connection refused"):
        list(distant.epoch(0, 0))


def test_a_server_that_breaks_off_stops_the_run(tmp_path: Path) -> None:
    """It must not be passed over like a damaged file: the rest can be had another time."""

    class Short(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "10240")
            self.end_headers()
            self.wfile.write((tmp_path / "a.tar").read_bytes()[:1300])

    write_tar(tmp_path / "a.tar", {f"{k}.png": png(k) for k in range(3)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), Short)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        stream = stream_of(f"http://127.0.0.1:{server.server_port}/a.tar", samples=3, shuffle_buffer=1)
        with pytest.raises(InputError, match="go on with --resume"):
            list(stream.epoch(0, 0))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
