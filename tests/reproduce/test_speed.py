"""The section on speed says what the lines say, whatever they are of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evensphere.bench.rows import summarise, write_rows
from evensphere.errors import InputError
from evensphere.reproduce.page import to_markdown
from evensphere.reproduce.publish import publish
from evensphere.reproduce.speed import read_lines, speed_section


def line(what: str, n: int, *spread: float, unit: str = "ms", **more: Any) -> str:
    median, low, high = spread
    return json.dumps({"what": what, "n": n, "median": median, "min": low, "max": high, "unit": unit, **more})


def write(file: Path, *lines: str) -> None:
    file.write_text("\n".join(lines) + "\n")


def test_nothing_measured_is_no_section(tmp_path: Path) -> None:
    assert speed_section(tmp_path, tmp_path) == []


def test_what_bench_writes_is_a_table_and_a_picture(tmp_path: Path) -> None:
    bare, step = [1.0, 2.0, 3.0], [1.5, 3.0, 4.5]
    rows = [summarise("bare backbone", bare, "ms", bare), summarise("step", step, "ms", bare)]
    on = {"device": "CPU", "threads": 2, "revision": "0123456789abcdef", "packages": {"torch": "2.6", "numpy": "2"}}
    write_rows(tmp_path / "bench-cpu.jsonl", rows, {**on, "made_up": True})
    (tmp_path / "bench-cpu.reading.md").write_text("It is fast.\n")

    page = publish(tmp_path, tmp_path / "docs")
    assert "## Speed\n" in page
    assert "### A step, its parts and the bare backbone (`bench-cpu.jsonl`)\n\nIt is fast.\n" in page
    assert "device CPU; threads 2; revision 012345678; torch 2.6. The pixels are made up." in page
    assert "| bare backbone | 2 | 1 | 3 | ms | 3 | 1.000 |\n| step | 3 | 1.5 | 4.5 | ms | 3 | 1.500 |" in page
    assert "](results/speed-bench-cpu.png)" in page
    assert (tmp_path / "docs" / "results" / "speed-bench-cpu.png").stat().st_size > 5_000


def test_any_file_of_lines_has_its_place(tmp_path: Path) -> None:
    """Without intervals, ratios and context; one value of a unit, or nothing measured twice, is no picture."""
    write(tmp_path / "population.jsonl", line("exact", 5, 0.04, 0.03, 0.051), line("reference", 5, 1234.5, 1000, 2000))
    write(tmp_path / "other.jsonl", line("bytes", 1, 400, 400, 400, unit="MB"), line("time", 5, 1, 1, 1))
    page = to_markdown(speed_section(tmp_path, tmp_path))
    assert "## Population statistics (`population.jsonl`)" in page
    assert "## other (`other.jsonl`)" in page
    assert "| exact | 0.04 | 0.03 | 0.051 | ms | 5 |" in page
    assert "| reference | 1,234 | 1,000 | 2,000 | ms | 5 |" in page
    assert "| bytes | 400 |  |  | MB | 1 |" in page
    assert [file.name for file in tmp_path.glob("*.png")] == ["speed-population.png"]
    assert "medians and ranges of the rounds" in page


def test_lines_measured_on_different_things_do_not_share_them(tmp_path: Path) -> None:
    one, other = line("a", 5, 1, 1, 1, device="CPU", batch=8), line("b", 5, 1, 1, 1, device="CPU", batch=9)
    write(tmp_path / "x.jsonl", one, other)
    assert "Measured on: device CPU.\n" in to_markdown(speed_section(tmp_path, tmp_path))


@pytest.mark.parametrize("bad", ["{", "[1]", '{"what": "a", "n": 1}'])
def test_a_line_that_is_no_measurement_is_named(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "bench.jsonl"
    write(file, line("a", 1, 1, 1, 1), bad)
    with pytest.raises(InputError, match=r"bench\.jsonl, line 2 is no measurement"):
        read_lines(file)
