"""The section on speed, from benchmarks/results/*.jsonl: whatever was measured, one table and one picture a file.

A line is {"what", "n", "median", "min", "max", "unit"}; further fields that it may have are "low" and "high" (a 95 %
interval of the median), "ratio" (to the bare backbone, where nothing else is said), and what it was measured on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evensphere.errors import InputError
from evensphere.report.wording import three_figures
from evensphere.reproduce.choice import SIGNALS_FILE
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows
from evensphere.reproduce.pictures import medians_picture
from evensphere.reproduce.rarity import FILE as RARITY_FILE

Line = Mapping[str, Any]

_NEEDED = ("what", "n", "median", "min", "max", "unit")
_MEASURED_ON = (
    *("recipe", "network", "method", "batch", "images", "anchors", "workers", "device", "threads", "precision"),
    *("python", "packages", "revision"),
)
_PACKAGES = ("torch", "torchvision", "lightly")
_TITLES = {
    "bench": "A step, its parts and the bare backbone",
    "loader": "Decoding and cropping files",
    "peers": "The same step by other libraries",
    "population": "Population statistics",
}
_INTRODUCTION = (
    "Medians of n rounds in which everything is measured in turn, and the rounds' range; ratios are taken within a "
    "round. The rules, and the commands, are in benchmarks/README.md."
)


def speed_section(archive: Path, pictures: Path) -> list[Block]:
    """The section; nothing if nothing was measured. pictures: the folder for PNGs, as speed-FILE.png."""
    files = sorted(file for file in archive.glob("*.jsonl") if file.name not in (SIGNALS_FILE, RARITY_FILE))
    if not files:
        return []
    blocks: list[Block] = [Heading(1, "Speed"), Paragraph(_INTRODUCTION)]
    for file in files:
        lines = read_lines(file)
        reading = file.with_suffix(".reading.md")
        blocks += [
            Heading(2, f"{_title(file)} (`{file.name}`)"),
            *([Paragraph(reading.read_text().strip())] if reading.exists() else []),
            Paragraph(measured_on(lines)),
            *_picture(lines, pictures / f"speed-{file.stem}.png", _title(file)),
            _table(lines),
        ]
    return blocks


def read_lines(file: Path) -> list[Line]:
    """The lines of a file. Raises InputError for one that is no measurement."""
    lines: list[Line] = []
    for number, text in enumerate(file.read_text().splitlines(), start=1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict) or not line.keys() >= set(_NEEDED):
            raise InputError(f"{file}, line {number} is no measurement; each has {', '.join(_NEEDED)}.")
        lines.append(line)
    return lines


def _title(file: Path) -> str:
    kind = file.stem.split("-")[0]
    return _TITLES.get(kind, file.stem)


def measured_on(lines: Sequence[Line]) -> str:
    """What all lines have in common, in a sentence."""
    first = lines[0]
    common = {
        name: first[name] for name in _MEASURED_ON if all(line.get(name) == first.get(name, "") for line in lines)
    }
    packages = common.pop("packages", {})
    common |= {name: packages[name] for name in _PACKAGES if name in packages}
    if common.get("revision"):
        common["revision"] = common["revision"][:9]
    words = "; ".join(f"{name} {value}" for name, value in common.items() if value is not None)
    pixels = " The pixels are made up." if lines[0].get("made_up") else ""
    return f"Measured on: {words}.{pixels}"


def _table(lines: Sequence[Line]) -> Rows:
    with_ratio = any(line.get("ratio") is not None for line in lines)
    header = ["", "median", "min", "max", "unit", "n", *(["ratio"] if with_ratio else [])]
    rows = []
    for line in lines:
        spread = [three_figures(line[name]) if line["n"] > 1 else "" for name in ("min", "max")]
        ratio = line.get("ratio")
        cells = [line["what"], three_figures(line["median"]), *spread, line["unit"], str(line["n"])]
        rows.append([*cells, *(["" if ratio is None else f"{ratio:.3f}"] if with_ratio else [])])
    return Rows(header, rows)


def _picture(lines: Sequence[Line], file: Path, title: str) -> list[Picture]:
    """One panel a unit, of what was measured more than once; images a second are the times once more."""
    spread = [line for line in lines if line["n"] > 1 and line["unit"] != "images/s"]
    panels: dict[str, list[tuple[str, float, float, float]]] = {}
    for line in spread:
        low, high = line.get("low", line["min"]), line.get("high", line["max"])
        panels.setdefault(line["unit"], []).append((line["what"], line["median"], low, high))
    panels = {unit: rows for unit, rows in panels.items() if len(rows) > 1}
    if not panels:
        return []
    interval = "their 95 % intervals" if all("low" in line for line in spread) else "ranges of the rounds"
    return [medians_picture(file, panels, f"{title}: medians and {interval}.")]
