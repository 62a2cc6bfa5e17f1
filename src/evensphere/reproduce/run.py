"""Run a table's cells one after the other; interrupted anywhere, the same command goes on."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from evensphere.recipes.run import evaluate, train
from evensphere.report import write_report
from evensphere.reproduce.cells import Cell, table_cells
from evensphere.reproduce.results import collect, write_results
from evensphere.rundir import RunDir


def reproduce(
    table: str,
    scale: str = "small",
    seeds: int = 3,
    data: str | None = None,
    out: Path | str | None = None,
    console: Console | None = None,
) -> Path:
    """Run what is left of a table and write results.parquet, results.md and report.html into its folder; returns it.

    table, scale: see TABLES and SCALES. data: where the scale's data set lies. out: default runs/reproduce/TABLE-SCALE.
    The results are rewritten after every cell, so an unfinished table can be looked at.
    """
    console = console or Console(quiet=True)
    folder = Path(out) if out is not None else Path("runs") / "reproduce" / f"{table}-{scale}"
    cells = table_cells(table, scale, seeds, data)
    for number, cell in enumerate(cells, start=1):
        if not RunDir(folder / cell.folder).evaluation_file.exists():
            console.print(f"Cell {number} of {len(cells)}: {cell.folder}")
            _run_cell(cell, folder, console)
            done = [folder / one.folder for one in cells if RunDir(folder / one.folder).evaluation_file.exists()]
            write_results(folder, f"evensphere reproduce {table} --scale {scale} --seeds {seeds}", collect(done))
            write_report(done, folder / "report.html")
    return folder


def _run_cell(cell: Cell, folder: Path, console: Console) -> None:
    branch = None if cell.branch is None else folder / cell.branch
    train(cell.recipe, folder / cell.folder, resume=True, branch=branch, console=console)
    evaluate(folder / cell.folder, console=console)
