"""Whole files or none, whatever the operating system does; and nothing in the package writes in any other way."""

from __future__ import annotations

import ast
import errno
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from tests.faults import ERRORS, FAULTS, PowerCut, faulty_disk

from evensphere import disk
from evensphere.disk import DiskError, append, atomic_file, atomic_write, clear_parts, make_folder, truncate
from evensphere.errors import InputError

PACKAGE = Path(__file__).parents[1] / "src" / "evensphere"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for content in (b"old", memoryview(b"newer"), b"", np.arange(12, dtype=np.int32).reshape(3, 4).data):
        atomic_write(file, content)
        assert file.read_bytes() == bytes(content)
    atomic_write(file, "naïve\n")
    assert file.read_bytes() == "naïve\n".encode()
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_call_fails_the_file_is_the_old_or_the_new_one(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, old, new = tmp_path / "file", b"o" * 1000, b"n" * 2000
    atomic_write(file, old)
    with faulty_disk(monkeypatch) as healthy:
        atomic_write(file, new)
    assert healthy.calls == 8, "open, write, fsync, close, replace; open, fsync, close of the folder"
    found = []
    for at in range(healthy.calls):
        atomic_write(file, old)
        lenient = fault in ("EACCES", "EPERM") and at >= 5  # a folder that one may not list is not synced
        with faulty_disk(monkeypatch, at, fault), nullcontext() if lenient else pytest.raises((DiskError, PowerCut)):
            atomic_write(file, new)
        found.append(file.read_bytes())
        if not fault.startswith("power cut"):
            assert names(tmp_path) == ["file"], "what was half written is gone"
        clear_parts(tmp_path)
        assert names(tmp_path) == ["file"]
    assert set(found) <= {old, new}
    assert found[0] == old
    assert fault == "power cut, names lost" or found[-1] == new


def test_a_power_cut_loses_what_was_never_brought_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that fails is worth something: without either fsync it finds the file lost."""
    file = tmp_path / "file"

    def write_two() -> None:
        atomic_write(file, b"new")
        atomic_write(tmp_path / "other", b"other")

    atomic_write(file, b"old")
    with faulty_disk(monkeypatch, 7, "power cut") as faulty:
        monkeypatch.setattr(faulty, "fsync", lambda _: None, raising=False)
        with pytest.raises(PowerCut):
            write_two()
    assert file.read_bytes() == b"", "renamed before its content was on the disk"
    atomic_write(file, b"old")
    monkeypatch.setattr(disk, "_sync_folder", lambda _: None)
    with faulty_disk(monkeypatch, 7, "power cut, names lost"), pytest.raises(PowerCut):
        write_two()
    assert file.read_bytes() == b"old", "its new name was never on the disk"


def test_a_system_that_writes_a_little_at_a_time_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_disk(monkeypatch) as slow:
        write = slow.write
        monkeypatch.setattr(slow, "write", lambda descriptor, data: write(descriptor, data[:7]), raising=False)
        atomic_write(tmp_path / "file", b"0123456789" * 3)
        append(tmp_path / "lines", "0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789" * 3
    assert (tmp_path / "lines").read_text() == "0123456789"


def test_a_large_file_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    file = tmp_path / "pixels"
    with atomic_file(file) as pieces:
        for i in range(3):
            pieces.write(bytes([i]) * 10)
            assert not file.exists()
    assert file.read_bytes() == b"\0" * 10 + b"\1" * 10 + b"\2" * 10

    def fail() -> None:
        with atomic_file(file) as pieces:
            pieces.write(b"half")
            raise OSError("reading something else failed")

    with pytest.raises(OSError, match="reading") as other:
        fail()
    assert len(file.read_bytes()) == 30
    assert not isinstance(other.value, DiskError), "which is not said to be the fault of the file being written"
    assert names(tmp_path) == ["pixels"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_is_appended_whole_or_taken_back(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "lines"
    append(file, "first\n")
    with faulty_disk(monkeypatch) as healthy:
        append(file, "second\n")
    for at in range(healthy.calls):
        truncate(file, len("first\n"))
        with faulty_disk(monkeypatch, at, fault), pytest.raises((DiskError, PowerCut)):
            append(file, "second\n")
        left = file.read_text()
        assert left in ("first\n", "first\nsecond\n")
        if not fault.startswith("power cut") and at < healthy.calls - 1:  # all but the close, when all is done
            assert left == "first\n"


@pytest.mark.parametrize("error", ERRORS)
def test_what_cannot_be_written_is_one_sentence(error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason, todo = {
        "ENOSPC": ("disk is full", "make room"),
        "EDQUOT": ("quota", "make room"),
        "EROFS": ("read-only", "choose another place"),
        "EACCES": ("permission denied", "choose another place"),
        "EPERM": ("permission denied", "choose another place"),
        "EIO": ("input/output error", "have it checked"),
    }[error]
    with faulty_disk(monkeypatch, 0, error), pytest.raises(InputError) as failed:
        atomic_write(tmp_path / "file", b"")
    sentence = str(failed.value)
    assert str(tmp_path / "file") in sentence
    assert reason in sentence
    assert todo in sentence
    assert sentence.count("\n") == 0
    assert isinstance(failed.value.__cause__, OSError)
    assert failed.value.__cause__.errno == getattr(errno, error)


def test_a_folder_is_made_with_those_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="file"):
        make_folder(tmp_path / "file" / "below")
    with faulty_disk(monkeypatch) as healthy:
        make_folder(tmp_path / "c" / "d")
    for at in range(healthy.calls):
        with faulty_disk(monkeypatch, at, "power cut, names lost"), pytest.raises(PowerCut):
            make_folder(tmp_path / f"e{at}" / "f")
        make_folder(tmp_path / f"e{at}" / "f")
        assert (tmp_path / f"e{at}" / "f").is_dir()


def test_a_folder_that_cannot_be_synced_is_no_reason_to_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems refuse it."""
    with faulty_disk(monkeypatch, 6, "EACCES"):
        atomic_write(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


# --- nothing else writes ----------------------------------------------------------------------------------------------

WRITERS = {
    *("write_text", "write_bytes", "tofile", "savefig", "save", "savez", "savez_compressed", "savetxt", "save_file"),
    *("write_table", "write_html", "write_image", "to_csv", "to_parquet", "to_json_file", "dump", "imwrite"),
}  # allowed into a buffer in memory
FORBIDDEN = {
    *("mkdir", "makedirs", "rename", "renames", "unlink", "rmdir", "removedirs", "touch", "symlink_to", "hardlink_to"),
    *("symlink", "link", "truncate", "copy2", "copyfile", "copytree", "move", "NamedTemporaryFile", "mkstemp"),
    *("mkdtemp", "TemporaryDirectory", "TemporaryFile", "open_memmap", "chmod"),
}
READING_FLAGS = {"os.O_RDONLY", "flags | getattr(os, 'O_NONBLOCK', 0)"}  # the second as an opener, of what it is given
READING = {"r", "rb", "r:", "r|*", "rt"}
ALLOWED = {
    ("data/cache.py", "rmtree"),  # a cache that was left half built
}


def writes(source: str) -> list[str]:
    """Every call in a source text that could write to a disk, by name."""
    tree, found = ast.parse(source), []
    buffers = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("io.BytesIO(")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        texts = [a.value for a in _arguments(node) if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        into_buffer = any(isinstance(a, ast.Name) and a.id in buffers for a in _arguments(node))
        is_method = isinstance(function, ast.Attribute)
        of_module = ast.unparse(function.value) if isinstance(function, ast.Attribute) else ""
        if (
            (name in WRITERS and not into_buffer and name not in _imported_and_harmless(tree))
            or (name in FORBIDDEN and is_method)
            or (name == "rmtree")
            or (of_module in ("os", "shutil") and name in ("replace", "remove", "copy", "write"))
            or (is_method and name == "replace" and len(node.args) == 1 and not node.keywords)
            or (name in ("open", "ZipFile", "memmap") and any(_is_mode(t) and t not in READING for t in texts))
            or (of_module == "os" and name == "open" and ast.unparse(node.args[1]) not in READING_FLAGS)
        ):
            found.append(name)
    return found


def _arguments(call: ast.Call) -> list[ast.expr]:
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def _is_mode(text: str) -> bool:
    return 0 < len(text) <= 4 and set(text) <= set("rwaxbt+:|*")


def _imported_and_harmless(tree: ast.Module) -> set[str]:
    """Names of safetensors' `save`, which writes nothing, and of functions of ours, which are looked at themselves."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    known = [node for node in imports if f"{node.module}.".startswith(("safetensors.torch.", "evensphere."))]
    return {a.asname or a.name for node in known for a in node.names}


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_disk_writes(file: Path) -> None:
    where = str(file.relative_to(PACKAGE))
    if where != "disk.py":
        assert [name for name in writes(file.read_text()) if (where, name) not in ALLOWED] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("path.write_text('a')", ["write_text"]),
        ("path.open('w')", ["open"]),
        ("open(path, mode='ab')", ["open"]),
        ("path.open('r+b')", ["open"]),
        ("open(path); path.open('rb'); source.open(3); tarfile.open(file, mode='r|*')", []),
        ("figure.savefig(file)", ["savefig"]),
        ("png = io.BytesIO()\nfigure.savefig(png, format='png')", []),
        ("np.save(folder / 'index.npy', index)", ["save"]),
        ("torch.save(state, path)", ["save"]),
        ("os.open(path, os.O_RDONLY)", []),
        ("os.open(path, os.O_WRONLY)", ["open"]),
        ("os.replace(a, b); a.replace(b); text.replace('a', 'b'); part.replace(size=3)", ["replace", "replace"]),
        ("folder.mkdir(parents=True); file.unlink(); shutil.copy(a, b)", ["mkdir", "unlink", "copy"]),
        ("from safetensors.torch import save\nsave(tensors)", []),
        ("np.memmap(path, np.uint8, 'c'); np.memmap(path, np.uint8, 'w+')", ["memmap"]),
    ],
)
def test_the_rule_sees_every_way_of_writing(source: str, found: list[str]) -> None:
    assert writes(source) == found
