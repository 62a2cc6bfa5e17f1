"""Run a table's cells; interrupted anywhere, the same command goes on.

A cell belongs to the process that holds its lock, so the same command in a second terminal shares the work. A table
without cells is measured by one process while others wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console

from evensphere.disk import atomic_write, make_folder
from evensphere.errors import InputError
from evensphere.recipes.run import evaluate, train
from evensphere.report import write_report
from evensphere.reproduce.cells import Cell, get_table, table_cells
from evensphere.reproduce.measured import MEASURES
from evensphere.reproduce.page import Block, to_html, to_markdown, to_tex
from evensphere.reproduce.results import collect, write_scores
from evensphere.reproduce.summary import table_page
from evensphere.reproduce.surrogates import look_back, own_harmonizer
from evensphere.rundir import RunDir, Split

_PATIENCE = 5.0  # seconds between two looks at cells that other processes are running


def reproduce(
    table: str,
    scale: str = "small",
    seeds: int = 3,
    data: str | None = None,
    out: Path | str | None = None,
    console: Console | None = None,
) -> Path:
    """Run what is left of a table and write TABLE.md, TABLE.html, TABLE.tex and, of runs, TABLE.parquet; returns their
    folder.

    table, scale: see TABLES and SCALES. data: where the table's data set lies. out: default runs/reproduce/SCALE, which
    the tables of a scale share. The results are rewritten after every cell, so an unfinished table can be looked at.
    Raises InputError before anything is written for an unknown name, no seeds, a scale that the table does not have, or
    a table that needs its data and was given none.
    """
    console = console or Console(quiet=True)
    folder = Path(out) if out is not None else Path("runs") / "reproduce" / scale
    if table in MEASURES:
        return _measure(table, scale, seeds, data, folder, console)
    command = f"evensphere reproduce {table} --scale {scale} --seeds {seeds}"
    cells, split = table_cells(table, scale, seeds, data), get_table(table).split
    _check_data(table, cells[0])
    make_folder(folder)
    while left := [cell for cell in cells if not _is_done(cell, folder, split)]:
        ran_one = False
        for cell in left:
            if _run_if_free(cell, folder, split, console):
                ran_one = True
                _write(table, command, [one for one in cells if _is_done(one, folder, split)], folder)
        if not ran_one:
            console.print(f"{len(left)} cells are being run by other processes; waiting for them.")
            time.sleep(_PATIENCE)
    _write(table, command, cells, folder)
    return folder


def _measure(table: str, scale: str, seeds: int, data: str | None, folder: Path, console: Console) -> Path:
    """A table without cells."""
    make_folder(folder)
    with FileLock(folder / f".{table}.lock"):
        MEASURES[table].measure(scale, seeds, data, folder, console)
        command = f"evensphere reproduce {table} --scale {scale} --seeds {MEASURES[table].seeds(folder)}"
        _write_page(table, MEASURES[table].page(command, folder, folder / table), folder)
    return folder


def _check_data(table: str, cell: Cell) -> None:
    """Refuse a table on images that nobody said the place of; a data set that names a place of its own needs none."""
    if get_table(table).recipe == cell.recipe.name and "path" not in cell.recipe.data.options:
        raise InputError(
            f"The table {table} needs the images and the lists of {cell.recipe.data.name}, which have to be got from "
            "their owners (see docs/data.md); give their folder with --data PATH."
        )


def _is_done(cell: Cell, folder: Path, split: Split) -> bool:
    return RunDir(folder / cell.folder).results_file(split).exists()


def _run_if_free(cell: Cell, folder: Path, split: Split, console: Console) -> bool:
    """Train and score a cell, unless another process has it or its first stage is not there yet."""
    try:
        with FileLock(folder / f".{cell.folder}.lock").acquire(timeout=0):
            if _is_done(cell, folder, split) or not _can_start(cell, folder):
                return False
            console.print(f"Cell {cell.folder}")
            branch = None if cell.branch is None else folder / cell.branch
            train(cell.recipe, folder / cell.folder, resume=True, branch=branch, console=console)
            _look_back(cell, folder)
            evaluate(folder / cell.folder, console=console, split=split)
            return True
    except Timeout:
        return False


def _can_start(cell: Cell, folder: Path) -> bool:
    """Whether the run to branch off has reached the end of its warm-up."""
    if cell.branch is None:
        return True
    stem = RunDir(folder / cell.branch)
    if not stem.recipe_file.exists():
        return False
    return stem.checkpoint_file(stem.read_recipe()["resolved"]["warm_up_steps"]).exists()


def _look_back(cell: Cell, folder: Path) -> None:
    """Measure the surrogate labels of GH and of its control, which has none of its own and is seen by GH's anchors."""
    run, stem = RunDir(folder / cell.folder), RunDir(folder / (cell.branch or cell.folder))
    if cell.arm in ("gh", "two-stage") and not run.surrogates_file.exists():
        run.write_json(run.surrogates_file, {"checkpoints": look_back(run, own_harmonizer(stem))})


def _write(table: str, command: str, done: list[Cell], folder: Path) -> None:
    """What the finished cells add up to: TABLE.parquet and the page. One process writes at a time."""
    with FileLock(folder / f".{table}.lock"):
        scores = collect(done, folder, get_table(table).split)
        write_scores(folder / f"{table}.parquet", scores)
        _write_page(table, table_page(table, command, scores, done, folder, pictures=folder / table), folder)
        write_report([folder / cell.folder for cell in done], folder / f"{table}-runs.html")


def _write_page(table: str, blocks: Sequence[Block], folder: Path) -> None:
    """TABLE.md, TABLE.html and TABLE.tex."""
    atomic_write(folder / f"{table}.md", to_markdown(blocks))
    atomic_write(folder / f"{table}.html", to_html(blocks, folder))
    atomic_write(folder / f"{table}.tex", to_tex(blocks, table))
