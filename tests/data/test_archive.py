"""Zip and tar files as they are found, read in place."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from tests.data.image_files import locations

from evensphere.data import archive as archive_module
from evensphere.data.archive import archive
from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.scan import scan
from evensphere.data.source import UnreadableImage
from evensphere.errors import InputError


def png(red: int = 0, size: tuple[int, int] = (8, 6)) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, (red, 0, 0)).save(encoded, "png")
    return encoded.getvalue()


def write_zip(file: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as opened:
        for name, content in members:
            opened.writestr(name, content)
    return file


def write_tar(file: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(file, "w") as opened:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return file


WRITE: dict[str, Callable[[Path, list[tuple[str, bytes]]], Path]] = {".zip": write_zip, ".tar": write_tar}


@pytest.fixture(params=WRITE)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[tuple[str, bytes]]], Path]:
    return lambda members: WRITE[request.param](tmp_path / f"images{request.param}", members)


Made = Callable[[list[tuple[str, bytes]]], Path]


def test_an_archive_has_the_shapes_of_a_folder(made: Made) -> None:
    names = ["b/1.png", "B/1.png", "a-b/1.png", "a/10.PNG", "a/2.png", "é/1.png", "readme.txt", "a/.hidden.png"]
    source = archive(made([(name, png(i)) for i, name in enumerate(names)])).pretrain
    assert locations(source) == ["B/1.png", "a-b/1.png", "a/10.PNG", "a/2.png", "b/1.png", "é/1.png"]
    assert source.class_names == ("B", "a", "a-b", "b", "é")
    assert [int(source.read(i)[0, 0, 0]) for i in range(6)] == [1, 2, 3, 4, 0, 5]


def test_official_splits(made: Made) -> None:
    names = [f"{part}/{name}/{i}.png" for part, count in COUNTS.items() for name in ("a", "b") for i in range(count)]
    splits = archive(made([(name, png()) for name in names]), groups="folder")
    assert splits.train_counts() == [3, 3]
    assert splits.validation is not None
    assert splits.test is not None
    assert locations(splits.validation) == ["val/a/0.png", "val/b/0.png"]
    assert locations(splits.test) == ["test/a/0.png", "test/a/1.png", "test/b/0.png", "test/b/1.png"]
    groups = splits.pretrain.groups()
    assert groups is not None
    assert groups.tolist() == [0, 0, 0, 1, 1, 1]


COUNTS = {"train": 3, "val": 1, "test": 2}


@pytest.mark.parametrize("prefix", ["./", "photos/", "./all/photos//"])
def test_folders_that_hold_everything_are_looked_through(made: Made, prefix: str) -> None:
    file = made([(f"{prefix}{name}/{i}.png", png(i)) for name in ("cat", "dog") for i in range(3)])
    splits = archive(file)
    assert splits.pretrain.class_names == ("cat", "dog")
    assert splits.test is not None
    assert locations(splits.pretrain)[0] == f"{prefix}cat/0.png".removeprefix("./").replace("//", "/")


def test_of_members_with_one_name_the_last_counts(made: Made) -> None:
    source = archive(made([("a.png", png(1)), ("b.png", png(2)), ("./a.png", png(3))])).pretrain
    assert [int(source.read(i)[0, 0, 0]) for i in range(2)] == [3, 2]
    assert source.unlisted == (("a.png", "a later member has the same name"),)


def test_stored_and_deflated_members_are_read(tmp_path: Path) -> None:
    members = [(f"{i}.png", png(i, (50 + i, 40))) for i in range(3)]
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        source = archive(write_zip(tmp_path / "x.zip", members, method)).pretrain
        assert [source.read(i)[0].unique().tolist() for i in range(3)] == [[0], [1], [2]]
    (tmp_path / "prefixed.zip").write_bytes(b"#!/bin/sh\n" + (tmp_path / "x.zip").read_bytes())
    assert int(archive(tmp_path / "prefixed.zip").pretrain.read(2)[0, 0, 0]) == 2, "as self-extracting ones are"


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", [("z.png", png())]).read_bytes()
    file = write_tar(tmp_path / "x.tar", [("a.png", png()), ("b.png", png()), ("inner.zip", inner)])
    assert locations(archive(file).pretrain) == ["a.png", "b.png"]


# --- many readers -----------------------------------------------------------------------------------------------------


def test_threads_and_workers_read_what_one_reader_reads(made: Made) -> None:
    source = archive(made([(f"{i:03}.png", png(i, (8 + i, 9))) for i in range(200)])).pretrain
    alone = [source.read(i) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert all(one.equal(other) for one, other in zip(alone, pool.map(source.read, range(200)), strict=True))
    assert scan(source, workers=4) == []
    batches = [list(Loader(source, 50, Views(size=8), 0, workers).batches(0, 8)) for workers in (0, 2)]
    for (_, one), (_, other) in zip(*batches, strict=True):
        assert one.index.equal(other.index)
        assert torch.stack(tuple(one.images)).equal(torch.stack(tuple(other.images)))


def test_a_copy_reads_by_itself(made: Made) -> None:
    source = archive(made([(f"{i}.png", png(i)) for i in range(3)])).pretrain
    sent = pickle.dumps(source)
    del source
    copy = pickle.loads(sent)
    assert [int(copy.read(i)[0, 0, 0]) for i in range(3)] == [0, 1, 2]


def test_files_are_closed_again(made: Made) -> None:
    file = made([(f"{i}.png", png(i)) for i in range(3)])
    before = len(os.listdir("/dev/fd"))
    source = archive(file).pretrain
    assert len(os.listdir("/dev/fd")) == before + 1
    del source
    assert len(os.listdir("/dev/fd")) == before


# --- what is never read -----------------------------------------------------------------------------------------------


def test_names_that_lead_out_are_not_images(made: Made, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "secret.png")
    names = ["x/a/1.png", "x/b/1.png", "../secret.png", "x/../../secret.png", str(tmp_path / "secret.png")]
    source = archive(made([(name, png()) for name in names])).pretrain
    assert locations(source) == ["x/a/1.png", "x/b/1.png"]
    assert source.class_names == ("a", "b")
    assert [name for name, _ in source.unlisted] == names[2:]
    assert {reason for _, reason in source.unlisted} == {"its name leads out of the archive"}


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(write_tar(tmp_path / "x.tar", [("a.png", png()), ("b.png", png())]), "a") as opened:
        for name, kind in KINDS.items():
            info = tarfile.TarInfo(f"{name}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            opened.addfile(info)
    source = archive(tmp_path / "x.tar").pretrain
    assert locations(source) == ["a.png", "b.png"]
    reasons = dict(source.unlisted)
    assert reasons == {f"{name}.png": REASONS[name] for name in KINDS}


KINDS = {"soft": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}
REASONS = dict.fromkeys(("soft", "hard"), "a link, which is not followed") | dict.fromkeys(
    ("device", "pipe"), "not a plain file"
)


def test_what_cannot_be_read_in_a_zip_is_named(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "x.zip", [("a.png", png()), ("b.png", png())])
    with zipfile.ZipFile(file, "a") as opened:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
        opened.writestr("bz2.png", png(), zipfile.ZIP_BZIP2)
    assert dict(archive(file).pretrain.unlisted) == {
        "link.png": "a link, which is not followed",
        "bz2.png": "compressed by method 12; only stored and deflated members can be read",
    }


def test_encrypted_members_are_named(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "x.zip", [("train/a/1.png", png()), ("test/a/1.png", png()), ("test/a/2.png", png())])
    content = bytearray(file.read_bytes())
    entry = content.index(b"PK\1\2")
    content[entry + 8] |= 1  # "encrypted" in the first member's entry
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"no images; .* the first being train/a/1\.png \(encrypted"):
        archive(file)
    write_zip(file, [("a.png", png())])
    content = bytearray(file.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"holds 1 image files and none can .* a\.png \(encrypted"):
        archive(file)


def test_bombs_are_not_unpacked(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "LARGEST_MEMBER", 10_000)
    source = archive(made([("a.png", png()), ("b.png", png()), ("bomb.png", bytes(10_001))])).pretrain
    assert source.unlisted == (("bomb.png", "larger than 0 MB"),)


def test_a_member_that_unpacks_to_more_than_it_says_is_damaged(tmp_path: Path) -> None:
    file = write_zip(tmp_path / "x.zip", [("a.png", png()), ("b.png", png()), ("bomb.png", bytes(1_000_000))])
    content = bytearray(file.read_bytes())
    entry = content.rindex(b"PK\1\2")
    content[entry + 24 : entry + 28] = struct.pack("<I", 100)
    file.write_bytes(content)
    assert scan(archive(file).pretrain) == [(2, "damaged in the archive (wrong size or checksum)")]


# --- damage -----------------------------------------------------------------------------------------------------------


def test_damaged_members_are_skipped_with_the_reason(tmp_path: Path) -> None:
    members = [(f"{i}.png", png(i, (100, 100))) for i in range(8)]
    file = write_zip(tmp_path / "x.zip", members)
    content = bytearray(file.read_bytes())
    starts = [content.index(f"{i}.png".encode()) for i in range(8)]
    content[starts[1] + 40] ^= 0xFF
    content[starts[3] - 30] ^= 0xFF  # the signature
    file.write_bytes(content)
    found = scan(archive(file).pretrain)
    assert [i for i, _ in found] == [1, 3]
    assert all(reason.startswith("damaged in the archive") for _, reason in found)


def test_an_archive_that_shrinks_is_noticed(made: Made) -> None:
    file = made([(f"{i}.png", png(i)) for i in range(3)])
    source = archive(file).pretrain
    os.truncate(file, 300)
    with pytest.raises(UnreadableImage, match="cut off: the archive ends before it"):
        source.read(2)


def test_truncated_archives_are_one_sentence(made: Made) -> None:
    file = made([(f"{i}.png", os.urandom(2000)) for i in range(6)])
    whole = file.read_bytes()
    for size in (100, 700, 3000, 9000):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"is no complete zip or tar file \(.*\); get it again") as caught:
            archive(file)
        assert "\n" not in str(caught.value)


def test_a_damaged_header_in_a_tar_is_one_sentence(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", [(f"{i}.png", png()) for i in range(6)])
    content = bytearray(file.read_bytes())
    content[3 * 1024 + 10] ^= 0xFF  # each member takes a header's block and one of content
    file.write_bytes(content)
    with pytest.raises(InputError, match="a damaged header"):
        archive(file)


def test_a_tar_that_leads_back_is_one_sentence(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "x.tar", [(f"{i}.png", png()) for i in range(3)])
    content = bytearray(file.read_bytes())
    header = content[1024:1536]
    header[124:136] = b"\xff" * 10 + b"\xfe\x00"  # a size of -512: the next header is this one
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    content[1024:1536] = header
    file.write_bytes(content)
    with pytest.raises(InputError, match="a damaged header"):
        archive(file)


def test_files_that_are_no_archives_are_one_sentence(tmp_path: Path) -> None:
    plain = write_tar(tmp_path / "x.tar", [("a.png", png()), ("b.png", png())])
    with gzip.open(tmp_path / "x.tar.gz", "wb") as opened:
        opened.write(plain.read_bytes())
    with pytest.raises(InputError, match=r"compressed as a whole.*gunzip --keep"):
        archive(tmp_path / "x.tar.gz")
    with pytest.raises(InputError, match="No such file"):
        archive(tmp_path / "nowhere.zip")
    for name in ("x.zip", "y.tar"):
        (tmp_path / name).write_text("no archive at all")
        with pytest.raises(InputError, match="is no complete zip or tar file"):
            archive(tmp_path / name)
    with pytest.raises(InputError, match="holds no image files"):
        archive(write_zip(tmp_path / "z.zip", [("notes.txt", b"x")]))
    with pytest.raises(InputError, match="channels = 0"):
        archive(plain, channels=0)
