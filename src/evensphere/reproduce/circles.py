"""The table of the toy in two dimensions: two angles of each pair of networks, and the picture of the first.

The networks are `evensphere.toy`'s. What they came to stays beside the table as toy.jsonl; a pair that is there is not
trained again.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from rich.console import Console

from evensphere.disk import atomic_write
from evensphere.errors import InputError
from evensphere.reproduce.cells import check_seeds, scale_of
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows
from evensphere.reproduce.results import paired_difference
from evensphere.reproduce.rows import ranges, spell, spell_detectable, spread
from evensphere.toy import learn, toy_picture
from evensphere.toy.learn import ARMS, COUNTS, HEAD_SHARE, STEPS

_TINY_STEPS = 30


class _Angle(NamedTuple):
    """title: of its column. better: the sign of a change that evens the clusters out."""

    title: str
    better: int


_ANGLES = {
    "head_arc": _Angle(f"arc of {HEAD_SHARE:.0%} of the largest, degrees", -1),
    "closest_centroids": _Angle("closest two centres, degrees", 1),
}

Line = dict[str, Any]


def measure_toy(scale: str, seeds: int, data: str | None, folder: Path, console: Console) -> None:
    """Train the pairs that are not there yet into FOLDER/toy.jsonl, with FOLDER/toy-circles.png of the first.

    The scale tiny takes 30 steps, the others the toy's own 600. Raises InputError for an unknown scale, no seeds, or
    data, which the toy makes up itself.
    """
    scale_of(scale)
    check_seeds(seeds)
    if data is not None:
        raise InputError(f"{data} was given as data; the toy makes up its own points, so leave --data out.")
    steps = _TINY_STEPS if scale == "tiny" else STEPS
    file, picture = folder / "toy.jsonl", folder / "toy-circles.png"
    lines = [line for line in _read(file) if line["steps"] == steps] if picture.exists() else []
    known = {line["seed"] for line in lines}
    for seed in (seed for seed in range(seeds) if seed not in known):
        console.print(f"Toy, seed {seed}")
        outcomes = [learn(arm, seed, steps) for arm in ARMS]
        angles = [{name: getattr(one, name) for name in _ANGLES} for one in outcomes]
        lines += [{"arm": arm, "seed": seed, "steps": steps, **found} for arm, found in zip(ARMS, angles, strict=True)]
        if seed == 0:
            toy_picture(outcomes, picture)
        atomic_write(file, "".join(json.dumps(line) + "\n" for line in lines))


def _read(file: Path) -> list[Line]:
    """The lines written so far. Raises InputError for a damaged file."""
    if not file.exists():
        return []
    try:
        lines = [json.loads(text) for text in file.read_text().splitlines()]
        return [{name: line[name] for name in ("arm", "seed", "steps", *_ANGLES)} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it to train the pairs again.") from error


def toy_files(folder: Path) -> list[Path]:
    """What the page is made of."""
    files = [folder / "toy.jsonl", folder / "toy-circles.png"]
    return files if all(file.exists() for file in files) else []


def seeds_of_toy(folder: Path) -> int:
    """The --seeds that the pairs answer."""
    return 1 + max(int(line["seed"]) for line in _read(folder / "toy.jsonl"))


def toy_page(command: str, folder: Path, pictures: Path) -> list[Block]:
    """The page of the pairs that are there. pictures: where the PNG goes, as PICTURES-circles.png."""
    lines = _read(folder / "toy.jsonl")
    drawn = pictures.with_name(f"{pictures.name}-circles.png")
    if drawn != folder / "toy-circles.png":
        atomic_write(drawn, (folder / "toy-circles.png").read_bytes())
    found = {
        arm: {name: {line["seed"]: line[name] for line in lines if line["arm"] == arm} for name in _ANGLES}
        for arm in ARMS
    }
    pairs = {name: (found["gh"][name], found["plain"][name]) for name in _ANGLES}
    differences = {name: paired_difference(*pair) for name, pair in pairs.items()}
    seeds = {line["seed"] for line in lines}
    sizes = ", ".join(f"{count:,}" for count in COUNTS)
    titles = [angle.title for angle in _ANGLES.values()]
    return [
        Heading(1, command),
        Paragraph(
            f"Clusters of {sizes} points on a circle, {lines[0]['steps']} steps, seeds {ranges(seeds)}: mean ± "
            "standard deviation (range). Even clusters have a short arc and centres that are 120 degrees apart. "
            "Differences are paired by seed, with 95 % intervals; below each, the smallest true difference that so "
            "many pairs would find four times in five."
        ),
        Picture(drawn.name, "The circles of the first seed, and in words what its pair came to."),
        Heading(2, "Angles"),
        Rows(
            ["arm", *titles, "seeds"],
            [
                [ARMS[arm], *(_spell(list(found[arm][name].values())) for name in _ANGLES), str(len(seeds))]
                for arm in ARMS
            ],
        ),
        Rows(
            ["difference, in degrees", *titles, "pairs"],
            [
                [
                    f"{ARMS['gh']}, against {ARMS['plain']}",
                    *map(spell, differences.values()),
                    str(len(seeds)),
                ],
                ["smallest detectable", *map(spell_detectable, differences.values()), ""],
                ["more even with GH, pairs", *(_more_even(name, *pairs[name]) for name in _ANGLES), str(len(seeds))],
            ],
        ),
    ]


def _more_even(name: str, gh: dict[int, float], plain: dict[int, float]) -> str:
    return str(sum(_ANGLES[name].better * (gh[seed] - plain[seed]) > 0 for seed in gh))


def _spell(values: list[float]) -> str:
    return f"{spread(values)} ({min(values):.0f} to {max(values):.0f})" if len(values) > 1 else f"{mean(values):.2f}"
