"""A table runs every cell once, shares first stages, and goes on wherever it was interrupted."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evensphere.errors import InputError
from evensphere.reproduce import run as runner
from evensphere.reproduce.cells import Cell, table_cells
from evensphere.reproduce.run import reproduce
from evensphere.rundir import RunDir


def written(folder: Path) -> dict[str, int]:
    """Encoders and evaluations, and when they were written."""
    files = [file for name in ("encoder.safetensors", "eval.json") for file in folder.glob(f"*/{name}")]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def test_an_interrupted_table_goes_on_and_no_cell_is_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_cell = runner._run_cell
    seen: list[str] = []

    def interrupted(cell: Cell, folder: Path, console: object) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(cell.folder)
        run_cell(cell, folder, console)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "_run_cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce("pilot", "tiny", seeds=2, out=tmp_path)
    assert seen == ["gh-seed0", "two-stage-seed0"]
    before = written(tmp_path)
    assert len(before) == 4
    assert (tmp_path / "results.md").exists(), "what is done can be looked at"

    monkeypatch.setattr(runner, "_run_cell", run_cell)
    reproduce("pilot", "tiny", seeds=2, out=tmp_path)
    after = written(tmp_path)
    assert len(after) == 12
    assert after | before == after, "finished cells were left alone"
    assert reproduce("pilot", "tiny", seeds=2, out=tmp_path) == tmp_path
    assert written(tmp_path) == after

    page = (tmp_path / "results.md").read_text()
    assert "| GH against two-stage learning rate, no GH | " in page
    assert "no claim can rest on it" in page
    scores = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert {(score["arm"], score["seed"]) for score in scores} == {
        (arm, seed) for arm in ("gh", "two-stage", "base") for seed in (0, 1)
    }
    assert len(scores) == 6 * 3 * 5, "arms and seeds, metrics, columns"
    shared = RunDir(tmp_path / "two-stage-seed0")
    assert min(shared.checkpoint_steps()) == RunDir(tmp_path / "gh-seed0").read_recipe()["resolved"]["warm_up_steps"]


def test_the_arms_of_a_seed_share_what_they_can() -> None:
    cells = table_cells("pilot", "paper", seeds=3, data="/images")
    assert len(cells) == len({cell.folder for cell in cells}) == 9
    for cell in cells:
        assert cell.branch == (f"gh-seed{cell.recipe.seed}" if cell.recipe.arm == "two-stage" else None)
        assert cell.recipe.data.options["path"] == "/images"
        assert cell.recipe.data.options.get("seed", 0) == 0, "the subset is the published one in every run"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("pilots", "tiny", 1), "pilot"), (("pilot", "smal", 1), "small"), (("pilot", "tiny", 0), "at least 1")],
)
def test_mistakes_are_refused(arguments: tuple[str, str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        table_cells(*arguments, data=None)
