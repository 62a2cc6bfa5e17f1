"""A table runs every cell once, shares first stages, and goes on wherever it was interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from evensphere.data.subset import long_tail_counts
from evensphere.errors import InputError
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.run import train
from evensphere.reproduce import run as runner
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import get_table, table_cells
from evensphere.reproduce.run import reproduce
from evensphere.rundir import RunDir


def written(folder: Path) -> dict[str, int]:
    """Encoders and evaluations, and when they were written."""
    files = [file for name in ("encoder.safetensors", "eval.json") for file in folder.glob(f"*/{name}")]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


@pytest.mark.slow
def test_an_interrupted_table_goes_on_and_no_cell_is_run_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def interrupted(recipe: Recipe, out: Path, **options: object) -> Path:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(out.name)
        return train(recipe, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce("pilot", "tiny", seeds=2, out=tmp_path)
    assert seen == ["base-seed0", "gh-seed0", "balanced-seed0"]
    before = written(tmp_path)
    assert len(before) == 6
    assert (tmp_path / "pilot.md").exists(), "what is done can be looked at"

    monkeypatch.setattr(runner, "train", train)
    reproduce("pilot", "tiny", seeds=2, out=tmp_path)
    after = written(tmp_path)
    assert len(after) == 16
    assert after | before == after, "finished cells were left alone"
    assert reproduce("pilot", "tiny", seeds=2, out=tmp_path) == tmp_path
    assert written(tmp_path) == after

    page = (tmp_path / "pilot.md").read_text()
    assert "| GH, against two-stage rate, no GH | " in page
    assert "no claim can rest on it" in page
    assert all(
        picture in page
        for picture in ("pilot-differences.png", "pilot-arms.png", "pilot-curves.png", "pilot-surrogates.png")
    )
    assert (tmp_path / "pilot.html").read_text().count("data:image/png;base64,iVBOR") == 4
    assert r"GH, against two-stage rate, no GH & $" in (tmp_path / "pilot.tex").read_text()
    scores = pq.read_table(tmp_path / "pilot.parquet").to_pylist()
    assert {(score["arm"], score["seed"]) for score in scores} == {
        (arm, seed) for arm in ("gh", "two-stage", "base", "balanced") for seed in (0, 1)
    }
    assert len(scores) == 8 * 3 * 5, "arms and seeds, metrics, columns"
    shared = RunDir(tmp_path / "two-stage-seed0")
    assert min(shared.checkpoint_steps()) == RunDir(tmp_path / "gh-seed0").read_recipe()["resolved"]["warm_up_steps"]


def test_the_arms_of_a_seed_share_what_they_can() -> None:
    cells = table_cells("pilot", "paper", seeds=3, data="/images")
    assert len(cells) == len({cell.folder for cell in cells}) == 12
    for cell in cells:
        assert cell.branch == (f"gh-seed{cell.recipe.seed}" if cell.arm == "two-stage" else None)
        assert cell.recipe.data.options["path"] == "/images"
        assert cell.recipe.data.options.get("seed", 0) == 0, "the subset is the published one in every run"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("pilots", "tiny", 1), "pilot"), (("pilot", "smal", 1), "small"), (("pilot", "tiny", 0), "at least 1")],
)
def test_mistakes_are_refused(arguments: tuple[str, str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        table_cells(*arguments, data=None)


def test_levers_share_the_pilots_runs_and_never_see_the_test_images() -> None:
    pilot, levers = (table_cells(table, "small", seeds=3, data=None) for table in ("pilot", "levers"))
    shared = {cell.folder for cell in pilot} & {cell.folder for cell in levers}
    assert shared == {f"{arm}-seed{seed}" for arm in ("gh", "two-stage") for seed in range(3)}
    assert all(cell in pilot for cell in levers if cell.folder in shared), "with the same recipe"
    whole = {cell.arm for cell in levers if cell.branch is None}
    assert whole == {"gh", "gh-beta-0.99", "gh-warm-up-0.25", "gh-warm-up-0.75", "batch-128-gh"}, (
        "what changes the first stage itself"
    )
    lever = [cell for cell in levers if cell.arm.startswith("gh-") and cell.arm not in whole]
    assert all(cell.branch == f"gh-seed{cell.recipe.seed}" for cell in lever)
    assert get_table("levers").split == "validation"
    assert {arm for arm in ARMS if arm.startswith("gh-")} <= set(get_table("levers").arms)


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_data_sets_of_every_skew_are_of_one_size(scale: str) -> None:
    """Otherwise the number of images would be confounded with the imbalance."""
    num_classes, whole = {"tiny": (10, 114), "small": (100, 450), "paper": (100, 450)}[scale]
    sizes = []
    for cell in table_cells("skew", scale, seeds=1, data=None):
        options: dict[str, Any] = {"imbalance": 20, "largest": whole, "profile": "exp"} | cell.recipe.data.options
        sizes.append(sum(long_tail_counts(options["largest"], num_classes, options["imbalance"], options["profile"])))
    assert max(sizes) <= 1.04 * min(sizes)


@pytest.mark.parametrize(("skew", "imbalance"), [("ir1", 1), ("ir10", 10), ("step", 97), ("gh", 100)])
def test_a_skew_is_as_large_as_it_says(skew: str, imbalance: int) -> None:
    cells = table_cells("skew", "small", seeds=1, data=None)
    options = next(cell for cell in cells if cell.arm.partition("-")[0] == skew).recipe.data.options
    largest = options.get("largest") or 450
    counts = long_tail_counts(largest, 100, options["imbalance"], options.get("profile", "exp"))
    assert max(counts) / min(counts) == pytest.approx(imbalance, rel=0.13)
    assert skew != "ir10" or "imbalance 10" in ARMS["ir10-gh"].title  # the others' titles name no ratio


def test_methods_share_the_pilots_runs_and_every_control_branches_off_its_own_first_stage() -> None:
    cells = table_cells("methods", "small", seeds=1, data=None)
    pilot = table_cells("pilot", "small", seeds=1, data=None)
    assert all(cell in pilot for cell in cells if not cell.arm.startswith("bcl"))
    assert {cell.arm: cell.branch for cell in cells if cell.branch} == {
        "two-stage": "gh-seed0",
        "bcl-two-stage": "bcl-gh-seed0",
    }
    assert {cell.recipe.method.name for cell in cells if cell.arm.startswith("bcl")} == {"bcl"}


@pytest.mark.slow
def test_two_processes_share_a_table(tmp_path: Path) -> None:
    """Each cell is trained by one of them, and both wait until all is done."""
    program = [sys.executable, "-c", "from evensphere.cli.main import main; main()"]
    command = [*program, "reproduce", "pilot", "--scale", "tiny", "--seeds", "1", "--out", str(tmp_path)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    begun = sorted(line for text in said for line in text.splitlines() if line.startswith("Cell "))
    assert begun == [f"Cell {arm}-seed0" for arm in ("balanced", "base", "gh", "two-stage")]
