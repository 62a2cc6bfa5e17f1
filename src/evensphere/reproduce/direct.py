"""The tables without runs, by name: what measures each of them, and what makes its page of what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from evensphere.reproduce import DIRECT
from evensphere.reproduce.circles import measure_toy, seeds_of_toy, toy_files, toy_page
from evensphere.reproduce.cost import cost_files, cost_page, measure_cost, seeds_of_cost
from evensphere.reproduce.page import Block


class Direct(NamedTuple):
    """measure: what is left, into a folder (scale, seeds, data, folder, console). files: in it, that the page is made
    of; none before anything was measured. seeds: the --seeds that they answer. page: (command, folder, pictures)."""

    measure: Callable[[str, int, str | None, Path, Console], None]
    files: Callable[[Path], Sequence[Path]]
    seeds: Callable[[Path], int]
    page: Callable[[str, Path, Path], list[Block]]


DIRECT_TABLES = {
    "cost": Direct(measure_cost, cost_files, seeds_of_cost, cost_page),
    "toy": Direct(measure_toy, toy_files, seeds_of_toy, toy_page),
}
assert DIRECT_TABLES.keys() == set(DIRECT)
