"""Values in their range: what is refused, and that it is one sentence that says what is allowed."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from evensphere import values
from evensphere.errors import InputError
from evensphere.values import as_bytes, check_memory, check_number, check_whole, free_memory, spelled


def refused(check: object, *arguments: object) -> str:
    """The sentence, which is one."""
    with pytest.raises(InputError) as error:
        check(*arguments)  # type: ignore[operator]
    sentence = str(error.value)
    assert len(sentence.splitlines()) == 1
    assert len(sentence) < 250
    assert sentence.endswith(".")
    return sentence


# --- whole numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, 2, 5])
def test_bounds_are_allowed(value: int) -> None:
    check_whole("epochs", value, 1, 5)
    check_whole("epochs", value, 1)


@pytest.mark.parametrize("value", [0, 6, 2.0, True, "3", None, math.nan, [2]])
def test_what_is_no_whole_number_in_its_range_is_refused(value: object) -> None:
    sentence = refused(check_whole, "epochs", value, 1, 5)
    assert sentence == f"epochs = {value!r} was given; it takes a whole number from 1 to 5."


def test_large_bounds_are_readable() -> None:
    assert refused(check_whole, "seed", -1, 0, 10**9).endswith("from 0 to 1,000,000,000.")
    assert refused(check_whole, "seed", -1, 0).endswith("of at least 0.")


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, 0.0, 0.5, 1])
def test_numbers_up_to_the_bounds_are_allowed(value: float) -> None:
    check_number("momentum", value, -1, 1)
    check_number("momentum", value)


@pytest.mark.parametrize("value", [-1.01, 1.01, math.nan, math.inf, -math.inf, 10**400])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    assert "it must be at least -1 and at most 1." in refused(check_number, "momentum", value, -1, 1)


def test_a_whole_number_beyond_all_floats_is_finite() -> None:
    check_number("momentum", 10**400)
    assert refused(check_number, "momentum", -(10**400), 0).endswith("it must be at least 0.")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_without_bounds_must_still_be_finite(value: float) -> None:
    assert refused(check_number, "weight", value) == f"weight = {value!r} was given; it must be a finite number."


def test_one_bound_is_said_alone() -> None:
    assert refused(check_number, "weight", -1, 0).endswith("it must be at least 0.")
    assert refused(check_number, "weight", 2, -math.inf, 1).endswith("it must be at most 1.")


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_is_refused_from_the_first_byte_that_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "free_memory", lambda: 1e9)
    check_memory("A queue of 5 embeddings", 1e9)
    sentence = refused(check_memory, "A queue of 5 embeddings", 1e9 + 1)
    assert sentence == "A queue of 5 embeddings would take 1.0 GB of memory, and 1.0 GB are free; choose a smaller one."
    assert "inf TB of memory" in refused(check_memory, "A queue of 5 embeddings", math.inf)


def test_the_smallest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory() < 1e15
    for limit in ("_container_memory", "_own_limit"):
        with monkeypatch.context() as patched:
            patched.setattr(values, limit, lambda: 1000.0)
            assert free_memory() == 1000
            patched.setattr(values, limit, lambda: -5.0)
            assert free_memory() == 0


@pytest.mark.parametrize(("limit", "expected"), [("5000", 4000.0), ("max", math.inf), (None, math.inf)])
def test_a_container_has_its_own_limit(
    limit: str | None, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("4000\n")
        (tmp_path / "memory.stat").write_text("anon 1000\nactive_file 1000\ninactive_file 2000\n")
    monkeypatch.setattr(values, "Path", lambda _: tmp_path)
    assert values._container_memory() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux")
def test_a_process_has_its_own_limit() -> None:
    """In a process of its own, since a limit cannot be taken back."""
    script = (
        "import resource, psutil\nfrom evensphere.values import free_memory, _own_limit\n"
        "assert _own_limit() == float('inf')\n"
        "resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 10**8,) * 2)\n"
        "assert 0 < free_memory() <= 10**8"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- in words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "words"),
    [
        *[(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (9940, "9.9 kB"), (12_345, "12 kB")],
        *[(999_400, "999 kB"), (999_500, "1.0 MB"), (5e9, "5.0 GB"), (2e12, "2.0 TB"), (3e16, "30,000 TB")],
    ],
)
def test_bytes_in_words(count: float, words: str) -> None:
    assert as_bytes(count) == words


@pytest.mark.parametrize(("value", "words"), [(3, "3"), ("a\nb", r"'a\nb'"), (None, "None"), ([1, "x"], "[1, 'x']")])
def test_a_value_is_spelled_as_python_writes_it(value: object, words: str) -> None:
    assert spelled(value) == words


def test_a_value_is_not_spelled_by_the_page() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert len(spelled("x" * 10_000)) == 63
    assert spelled("x" * 10_000).endswith("xxx...")
    assert spelled(10**5000) == "a int too long to write"
    assert spelled(nested) == "a list too long to write"
