"""`evensphere diagnose` on the command line: a page in words, and one sentence for a mistake."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

CLI = CliRunner()


def test_a_digits_run_is_described_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    run = train(get_recipe("digits-lt", "base").set(["epochs=2", "backbone.width=4"]), tmp_path / "base")
    done = CLI.invoke(app, ["diagnose", str(run), "--images", "300"])
    assert done.exit_code == 0, done.output
    assert "300 images of 383 looked at, no label seen" in done.output
    assert "warning  Was it long enough?" in done.output
    assert "What to do: Train for at least 1,000 steps" in done.output
    assert f"Next: evensphere evaluate {run}" in done.output
    assert (run / "diagnosis.json").exists()
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 100 or all(str(tmp_path) in line for line in lines if len(line) > 100)


def test_an_address_is_not_taken_for_a_folder() -> None:
    assert "hf://nobody/nothing" in str(CLI.invoke(app, ["diagnose", "hf://nobody/nothing"]).exception)


def test_a_run_whose_images_have_moved(tmp_path: Path) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    before.mkdir()
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (16, 16, 3), np.uint8)).save(before / f"{i}.png")
    recipe = with_data(get_recipe("folder", "base"), str(before))
    small = ["epochs=1", "backbone=resnet-small", "backbone.width=4", "views.size=16", "batch_size=4"]
    run = train(recipe.set(small), tmp_path / "run")
    before.rename(now)
    assert "There is no folder" in str(CLI.invoke(app, ["diagnose", str(run)]).exception)
    done = CLI.invoke(app, ["diagnose", str(run), "--data", str(now)])
    assert done.exit_code == 0, done.output
    assert "12 images of 12 looked at" in done.output
    assert "is no run" in str(CLI.invoke(app, ["diagnose", str(now), "--data", str(now)]).exception)
    drawn = CLI.invoke(app, ["report", str(run), "--map", "--data", str(now)])
    assert drawn.exit_code == 0, drawn.output
    assert RunDir(run).map_file.exists()


def test_a_folder_is_described_before_training_and_left_alone(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        Image.fromarray(np.full((40, 40, 3), 60 * i, np.uint8)).save(photos / f"{i}.png")
    done = CLI.invoke(app, ["diagnose", str(photos)])
    assert done.exit_code == 0, done.output
    assert "simple statistics" in done.output
    assert "Next: evensphere train folder" in done.output
    assert len(list(photos.iterdir())) == 4
