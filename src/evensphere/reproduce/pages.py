"""A table's numbers and its page: of accuracies (summary), or of a measure of finished runs (measures)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block
from evensphere.reproduce.population import population_page, population_scores
from evensphere.reproduce.results import Score, collect
from evensphere.reproduce.summary import table_page
from evensphere.reproduce.supervised import supervised_page, supervised_scores
from evensphere.reproduce.transfer import transfer_page, transfer_scores
from evensphere.reproduce.uniformity import uniformity_page, uniformity_scores

_MEASURED_SCORES: dict[str, Callable[[Sequence[Cell], Path], list[Score]]] = {
    "uniformity": uniformity_scores,
    "transfer": transfer_scores,
    "supervised": supervised_scores,
    "population": population_scores,
}


def command_of(table: str, scale: str, seeds: int, *options: str) -> str:
    """What makes a table's page."""
    return " ".join([f"evensphere reproduce {table} --scale {scale} --seeds {seeds}", *options])


def scores_of(table: str, done: Sequence[Cell], folder: Path) -> list[Score]:
    """Every number of a table's finished cells. folder: of their runs."""
    if table in _MEASURED_SCORES:
        return _MEASURED_SCORES[table](done, folder)
    return collect(done, folder, get_table(table).split)


def page_of(
    table: str, command: str, scores: Sequence[Score], done: Sequence[Cell], folder: Path, pictures: Path
) -> list[Block]:
    """The page of a table's finished cells. scores: what `scores_of` finds in them. pictures: where PNGs go, as
    PICTURES-NAME.png."""
    match table:
        case "uniformity":
            return uniformity_page(command, scores, pictures)
        case "transfer":
            return transfer_page(command, scores, done, folder)
        case "supervised":
            return supervised_page(command, scores)
        case "population":
            return population_page(command, scores, done, folder, pictures)
    return table_page(table, command, scores, done, folder, pictures)
