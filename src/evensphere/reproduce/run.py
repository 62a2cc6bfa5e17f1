"""Run a table's cells; interrupted anywhere, the same command goes on.

A cell belongs to the process that holds its lock, so the same command in a second terminal shares the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from rich.console import Console

from evensphere.recipes.run import evaluate, train
from evensphere.report import write_report
from evensphere.reproduce.cells import Cell, get_table, table_cells
from evensphere.reproduce.pictures import curves_picture, differences_picture, surrogates_picture
from evensphere.reproduce.results import collect, write_results
from evensphere.reproduce.surrogates import look_back, own_harmonizer
from evensphere.rundir import RunDir, Split

T = TypeVar("T")

_PATIENCE = 5.0  # seconds between two looks at cells that other processes are running


def reproduce(
    table: str,
    scale: str = "small",
    seeds: int = 3,
    data: str | None = None,
    out: Path | str | None = None,
    console: Console | None = None,
) -> Path:
    """Run what is left of a table and write TABLE.parquet, TABLE.md and TABLE.html; returns their folder.

    table, scale: see TABLES and SCALES. data: where the scale's data set lies. out: default runs/reproduce/SCALE, which
    the tables of a scale share. The results are rewritten after every cell, so an unfinished table can be looked at.
    """
    console = console or Console(quiet=True)
    folder = Path(out) if out is not None else Path("runs") / "reproduce" / scale
    cells, split = table_cells(table, scale, seeds, data), get_table(table).split
    command = f"evensphere reproduce {table} --scale {scale} --seeds {seeds}"
    folder.mkdir(parents=True, exist_ok=True)
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
    """Measure the surrogate labels of a finished run that shares its first stage with GH's, by GH's own anchors where
    it has none."""
    run, stem = RunDir(folder / cell.folder), RunDir(folder / (cell.branch or cell.folder))
    if (cell.arm == "gh" or cell.branch is not None) and not run.surrogates_file.exists():
        run.write_json(run.surrogates_file, {"checkpoints": look_back(run, own_harmonizer(stem))})


def _write(table: str, command: str, done: list[Cell], folder: Path) -> None:
    """What the finished cells add up to. One process writes at a time."""
    with FileLock(folder / f".{table}.lock"):
        _write_locked(table, command, done, folder)


def _write_locked(table: str, command: str, done: list[Cell], folder: Path) -> None:
    split, contrasts = get_table(table).split, get_table(table).contrasts
    scores = collect(done, folder, split)
    pictures = [
        differences_picture(folder / f"{table}-differences.png", scores, "probe", contrasts),
        curves_picture(folder / f"{table}-curves.png", _by_arm(done, folder, _knn_curve), _stage_change(done, folder)),
    ]
    looks = _by_arm([cell for cell in done if RunDir(folder / cell.folder).surrogates_file.exists()], folder, _looks)
    if "gh" in looks:
        pictures.append(surrogates_picture(folder / f"{table}-surrogates.png", looks))
    write_results(folder, table, command, scores, pictures)
    write_report([folder / cell.folder for cell in done], folder / f"{table}-runs.html")


def _by_arm(cells: list[Cell], folder: Path, read: Callable[[RunDir], T]) -> dict[str, dict[int, T]]:
    """What is read from each cell's run, by arm and seed."""
    found: dict[str, dict[int, T]] = {}
    for cell in cells:
        found.setdefault(cell.arm, {})[cell.recipe.seed] = read(RunDir(folder / cell.folder))
    return found


def _knn_curve(run: RunDir) -> list[tuple[float, float]]:
    """kNN on validation images over the epochs."""
    return [(event["epoch"] + 1, event["knn"]) for event in run.read_metrics() if event["event"] == "evaluation"]


def _looks(run: RunDir) -> list[dict[str, Any]]:
    checkpoints: list[dict[str, Any]] = json.loads(run.surrogates_file.read_text())["checkpoints"]
    return checkpoints


def _stage_change(cells: list[Cell], folder: Path) -> float | None:
    """The epoch that GH begins after, if there is a run with GH."""
    recipes = [RunDir(folder / cell.folder).read_recipe()["resolved"] for cell in cells]
    found = [one["warm_up_steps"] / one["steps_per_epoch"] for one in recipes if one["warm_up_steps"] is not None]
    return found[0] if found else None
