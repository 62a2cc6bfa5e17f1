"""Run a table's cells; interrupted anywhere, the same command goes on.

A cell is trained and scored, and then measured if the table asks for that; each is done once, whichever table came
first. A cell belongs to the process that holds its lock, so the same command in a second terminal shares the work. A
table without runs is measured by one process while others wait.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from rich.console import Console

from evensphere.disk import atomic_write, make_folder
from evensphere.errors import InputError
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.report import write_report
from evensphere.reproduce.cells import Cell, get_table, table_cells
from evensphere.reproduce.direct import DIRECT_TABLES
from evensphere.reproduce.measures import MEASURED, is_measured, measure
from evensphere.reproduce.page import Block, to_html, to_markdown, to_tex
from evensphere.reproduce.pages import command_of, page_of, scores_of
from evensphere.reproduce.results import write_scores
from evensphere.reproduce.surrogates import look_back, own_harmonizer
from evensphere.reproduce.transfer import Target, check_target, read_targets
from evensphere.rundir import RunDir

_PATIENCE = 5.0  # seconds between two looks at cells that other processes are running


def reproduce(
    table: str,
    scale: str = "small",
    seeds: int = 3,
    data: str | None = None,
    out: Path | str | None = None,
    console: Console | None = None,
    to: Sequence[str] = (),
    no_train: bool = False,
) -> Path:
    """Run what is left of a table and write TABLE.md, TABLE.html, TABLE.tex and, of runs, TABLE.parquet; returns their
    folder.

    table, scale: see TABLES and SCALES. data: where the table's data set lies. out: default runs/reproduce/SCALE, which
    the tables of a scale share. The results are rewritten after every cell, so an unfinished table can be looked at.
    to: for `transfer`, the labelled images to score on, each as NAME=PATH.
    no_train: train nothing; the table is made of the cells among these seeds that are trained and scored already, and
        what it asks of them is measured where it is missing.
    Raises InputError before anything is trained for an unknown name, no seeds, a scale that the table does not have, a
    table that needs its data and was given none, a target that cannot be used, and nothing to make the table of.
    """
    console = console or Console(quiet=True)
    folder = Path(out) if out is not None else Path("runs") / "reproduce" / scale
    if table in DIRECT_TABLES:
        return _measure_directly(table, scale, seeds, data, folder, console)
    cells = table_cells(table, scale, seeds, data)
    _check_data(table, cells[0])
    targets = _targets(table, to, cells[0])
    work = _Work(table, scale, folder, targets, console)
    options = [*["--no-train"] * no_train, *(f"--to {shlex.quote(one)}" for one in to)]
    command = command_of(table, scale, seeds, *options)
    make_folder(folder)
    if no_train:
        cells = [cell for cell in cells if work.needs_no_training(cell)]
        if not cells:
            raise InputError(
                f"No cell of {table} is trained and scored in {folder} (seeds 0 to {seeds - 1}); give its folder with "
                "--out, more --seeds, or leave out --no-train."
            )
    while left := [cell for cell in cells if not work.is_done(cell)]:
        ran_one = False
        for cell in left:
            if work.run_if_free(cell):
                ran_one = True
                _write(table, command, [one for one in cells if work.is_done(one)], folder)
        if not ran_one:
            console.print(f"{len(left)} cells are being run by other processes; waiting for them.")
            time.sleep(_PATIENCE)
    _write(table, command, cells, folder)
    return folder


def _measure_directly(table: str, scale: str, seeds: int, data: str | None, folder: Path, console: Console) -> Path:
    """A table without runs."""
    make_folder(folder)
    with FileLock(folder / f".{table}.lock"):
        DIRECT_TABLES[table].measure(scale, seeds, data, folder, console)
        command = command_of(table, scale, DIRECT_TABLES[table].seeds(folder))
        _write_page(table, DIRECT_TABLES[table].page(command, folder, folder / table), folder)
    return folder


def _check_data(table: str, cell: Cell) -> None:
    """Refuse a table on images that nobody said the place of; a data set that names a place of its own needs none."""
    if get_table(table).recipe == cell.recipe.name and "path" not in cell.recipe.data.options:
        raise InputError(
            f"The table {table} needs the images and the lists of {cell.recipe.data.name}, which have to be got from "
            "their owners (see docs/data.md); give their folder with --data PATH."
        )


def _targets(table: str, to: Sequence[str], cell: Cell) -> list[Target]:
    """What `transfer` scores on. Raises InputError where that cannot be, before anything is trained."""
    if table != "transfer":
        if to:
            raise InputError(f"--to {to[0]} was given for the table {table}; only transfer is scored on other images.")
        return []
    targets = read_targets(to)
    for target in targets:
        check_target(target, cell.recipe)
    return targets


class _Work(NamedTuple):
    """What is to be done for each cell of a table. folder: of its runs."""

    table: str
    scale: str
    folder: Path
    targets: list[Target]
    console: Console

    def is_done(self, cell: Cell) -> bool:
        return self._is_scored(cell) and self._is_measured(cell)

    def needs_no_training(self, cell: Cell) -> bool:
        """Whether it is trained and scored, and measured or still has its weights."""
        measurable = RunDir(self.folder / cell.folder).encoder_file.exists()
        return self._is_scored(cell) and (measurable or self._is_measured(cell))

    def _is_scored(self, cell: Cell) -> bool:
        return RunDir(self.folder / cell.folder).results_file(get_table(self.table).split).exists()

    def _is_measured(self, cell: Cell) -> bool:
        names = [target.name for target in self.targets]
        return self.table not in MEASURED or is_measured(RunDir(self.folder / cell.folder), self.table, names)

    def run_if_free(self, cell: Cell) -> bool:
        """Do what is left, unless another process has the cell or its first stage is not there yet."""
        try:
            with FileLock(self.folder / f".{cell.folder}.lock").acquire(timeout=0):
                if self.is_done(cell) or not (self._is_scored(cell) or _can_start(cell, self.folder)):
                    return False
                self.console.print(f"Cell {cell.folder}")
                if not self._is_scored(cell):
                    self._train(cell)
                if not self._is_measured(cell):
                    measure(self.folder / cell.folder, self.table, self.targets, self.scale, self.console)
                return True
        except Timeout:
            return False

    def _train(self, cell: Cell) -> None:
        branch = None if cell.branch is None else self.folder / cell.branch
        train(cell.recipe, self.folder / cell.folder, resume=True, branch=branch, console=self.console)
        _look_back(cell, self.folder)
        evaluate(self.folder / cell.folder, console=self.console, split=get_table(self.table).split)


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
        scores = scores_of(table, done, folder)
        write_scores(folder / f"{table}.parquet", scores)
        _write_page(table, page_of(table, command, scores, done, folder, pictures=folder / table), folder)
        write_report([folder / cell.folder for cell in done], folder / f"{table}-runs.html")


def _write_page(table: str, blocks: Sequence[Block], folder: Path) -> None:
    """TABLE.md, TABLE.html and TABLE.tex."""
    atomic_write(folder / f"{table}.md", to_markdown(blocks))
    atomic_write(folder / f"{table}.html", to_html(blocks, folder))
    atomic_write(folder / f"{table}.tex", to_tex(blocks, table))
