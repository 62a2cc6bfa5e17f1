"""What strangers wrote: bounds of files and of JSON, and texts as a terminal can show them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from evensphere import untrusted
from evensphere.errors import InputError
from evensphere.untrusted import parse_json, read_bytes, read_json, read_json_lines, read_json_object, shown

# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_may_be_as_long_as_the_limit_and_no_longer(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100)
    assert read_bytes(file, 100) == b"x" * 100
    with pytest.raises(InputError) as error:
        read_bytes(file, 99)
    assert str(error.value) == (
        f"{file} is longer than the 99 bytes that such a file may have; is it what it is said to be?"
    )


def test_a_file_that_does_not_say_how_long_it_is_is_read_whole(tmp_path: Path) -> None:
    """The files of /proc have no length until they are read."""
    file = Path("/proc/self/maps")
    if not file.exists():
        pytest.skip("there is no /proc")
    assert file.stat().st_size == 0
    assert read_bytes(file, 10**8).count(b"\n") > 100, "also where it is longer than is read at once"
    with pytest.raises(InputError, match="longer than the 10 bytes"):
        read_bytes(file, 10)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is no plain file; give a file"):
        read_bytes(tmp_path / "pipe", 100)
    with pytest.raises(InputError, match="no plain file"):
        read_bytes(Path("/dev/zero"), 100)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path, 100)


def test_a_sentence_shows_a_files_name_as_text(tmp_path: Path) -> None:
    file = tmp_path / "\x1b[31mred\nname"
    file.write_bytes(b"12")
    with pytest.raises(InputError) as error:
        read_bytes(file, 1)
    assert r"\x1b[31mred\nname is longer" in str(error.value)


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "[1,]", "NaN", '{"a": Infinity}', "-Infinity", "1e400", "-1e400", '{"a": [1e999]}'],
        *["[" * 10**5, '{"a":' * 10**5, "9" * 5000, b"\xff\xfe", b"\x00", "[1] 2"],
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # whichever there is, and no other kind
        parse_json(text)
    assert not isinstance(error.value, InputError)


def test_what_training_logs_may_hold_is_allowed_where_asked_for() -> None:
    assert math.isnan(parse_json("NaN", finite=False))
    assert parse_json('{"loss": Infinity}', finite=False) == {"loss": math.inf}
    assert parse_json("1e400", finite=False) == math.inf
    assert parse_json('{"a": [1, 2.5, -1e300]}') == {"a": [1, 2.5, -1e300]}


def test_json_files_have_the_bounds_of_files(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"a": 1}))
    assert read_json(file) == read_json_object(file) == {"a": 1}
    assert read_json(file, limit=8) == {"a": 1}
    with pytest.raises(InputError, match="longer than the 7 bytes"):
        read_json(file, limit=7)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent.json")


@pytest.mark.parametrize("content", ["[1]", "null", "{", '{"a": NaN}', ""])
def test_what_is_no_object_is_none(content: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(content)
    assert read_json_object(file) is None
    assert read_json_object(tmp_path / "absent.json") is None
    assert read_json_object(tmp_path) is None


def test_an_object_that_is_too_long_is_none(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"a": 1}')
    assert read_json_object(file, limit=7) is None


# --- lines of JSON ----------------------------------------------------------------------------------------------------


def lines_of(file: Path, content: bytes, size: int | None = None) -> list[dict[str, object] | None]:
    file.write_bytes(content)
    return list(read_json_lines(file, size))


def test_lines_that_hold_something_else_are_none_and_a_last_one_cut_short_is_passed_over(tmp_path: Path) -> None:
    content = b'{"a": 1}\n\n[2]\nwords\n   \n{"b": NaN}\n\xff\n{"c": 3'
    first, *middle, last = lines_of(tmp_path / "events", content)
    assert first == {"a": 1}
    assert middle == [None, None, {"b": pytest.approx(math.nan, nan_ok=True)}]
    assert last is None, "the line of bytes that are no text"
    assert lines_of(tmp_path / "events", b'{"a": 1}\n{"b": 2}') == [{"a": 1}, {"b": 2}], "whole without its end"


def test_only_the_first_bytes_are_read_where_that_is_asked_for(tmp_path: Path) -> None:
    content = b'{"a": 1}\n{"b": 2}\n'
    assert lines_of(tmp_path / "events", content, 9) == [{"a": 1}]
    assert lines_of(tmp_path / "events", content, 12) == [{"a": 1}]
    assert lines_of(tmp_path / "events", content, 0) == []


def test_a_line_and_a_file_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "EVENT", 20)
    long = b'{"a": "' + b"x" * 30 + b'"}\n'
    found = lines_of(tmp_path / "events", long + b'{"b": 2}\n')
    assert None in found, "a line that is too long is no object"
    assert found[-1] == {"b": 2}
    monkeypatch.setattr(untrusted, "EVENTS", 9)
    assert lines_of(tmp_path / "events", b'{"a": 1}\n' * 5) == [{"a": 1}]


# --- as a terminal shows it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain é 漢字 🙂", "plain é 漢字 🙂"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\x07\x00\x9b", r"\x07\x00\x9b"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_is_spelled(text: str, expected: str) -> None:
    assert shown(text) == expected
    assert shown(text).isprintable()
