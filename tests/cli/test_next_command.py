"""What is suggested next is what was meant, once a shell has read it."""

from __future__ import annotations

import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.cli.next_command import command, given_data
from evensphere.data.source import ArraySource, Splits
from evensphere.recipes.frozen import data_of
from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.rundir import RunDir


def understood(words: list[str]) -> Part:
    """The data of `train folder WORDS`."""
    given = {option: [b for a, b in pairwise(words) if a == option] for option in ("--data", "--set")}
    return with_data(get_recipe("folder"), *given["--data"]).set(given["--set"]).data


def birds(count: int = 2, name: str = "") -> Splits:
    """A collection of somebody's own."""
    return Splits(ArraySource(name, torch.zeros(count, 3, 8, 8, dtype=torch.uint8)))


def test_a_path_stays_one_word() -> None:
    line = command("report", Path("two words/it's"))
    assert shlex.split(line) == ["evensphere", "report", "two words/it's"]


@pytest.mark.parametrize(
    "data",
    [
        Part("folder", path="two words"),
        Part("folder", path=["one", "two"]),
        Part("table", path="rows.csv", label_column="species", channels=1),
        Part("cifar100", path="cifar", imbalance=100.0),
        Part("digits"),
        Part("table", path="rows.csv", label_column="2024", group_column="true", image_column=' "x" '),
        Part("tests.cli.test_next_command:birds", count=3, name="null"),
    ],
    ids=str,
)
def test_a_collection_is_named_with_all_that_was_said_of_it(data: Part) -> None:
    assert understood(shlex.split(shlex.join(given_data(data)))) == data


def test_the_images_of_a_run_are_those_of_its_recipe(tmp_path: Path) -> None:
    run = train(get_recipe("digits-lt", "base").set(["epochs=1", "backbone.width=4"]), tmp_path / "a run")
    recipe = Recipe.from_json(RunDir(run).read_recipe())
    assert data_of(run) == recipe.data
    assert data_of(run, ["photos"]) == Part("folder", path="photos")
    assert data_of("cifar100", ["somewhere"]) == Part("cifar100", path="somewhere")
    out = tmp_path / "flatter"
    done = CliRunner().invoke(app, ["curate", str(run), "--size", "40", "--out", str(out)])
    assert done.exit_code == 0, done.output
    words = shlex.split(done.output.splitlines()[-1].removeprefix("Next: "))
    assert words[:3] == ["evensphere", "train", "folder"]
    assert words[-1] == f"images={out / 'list.txt'}"
    assert understood(words[3:-2]) == recipe.data
