"""The README tells the truth: its tree is the tree, its code runs, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from evensphere.cli.main import app
from evensphere.recipes import RECIPES
from evensphere.recipes.recipe import get_recipe

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
TREE = next(text for _, text in BLOCKS if text.startswith("src/evensphere/"))
COMMANDS = [line.split("#")[0] for _, text in BLOCKS for line in text.splitlines() if line.startswith("evensphere ")]


def test_the_tree_names_every_file_and_no_other() -> None:
    named = set(re.findall(r"[\w/]+\.py", TREE.split("\ntests/")[0]))
    package = ROOT / "src" / "evensphere"
    listed_one_by_one = [
        file for file in package.rglob("*.py") if file.parent.name not in ("cli", "report", "reproduce", "bench", "toy")
    ]
    present = {file.name for file in listed_one_by_one if file.parent == package or file.name != "__init__.py"}
    assert named == present
    folders = {file.parent.name for file in package.rglob("*.py")} - {"evensphere"}
    assert set(re.findall(r"^  (\w+)/", TREE, re.MULTILINE)) == folders


def test_the_loop_of_ones_own_runs() -> None:
    code = next(text for language, text in BLOCKS if language == "python")
    names = {
        "dataset": [((torch.randn(8), torch.randn(8)), label) for label in range(10)],
        "model": torch.nn.Linear(8, 128),
        "criterion": torch.nn.functional.mse_loss,
    }
    exec(code, names)
    assert torch.isfinite(names["loss"])  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_exist(command: str) -> None:
    from typer.main import get_command

    _, name, *arguments = shlex.split(command)
    parser = get_command(app).commands[name]  # type: ignore[attr-defined]
    parser.make_context(name, list(arguments), resilient_parsing=False)
    if name == "train":
        assert arguments[0] in RECIPES


@pytest.mark.parametrize(("recipe", "words"), [("cifar100-lt", "images of each class"), ("folder", "can be changed")])
def test_its_settings_are_accepted(recipe: str, words: str) -> None:
    assert README.count(words) == 1
    settings = re.search(r"`((?:--set\s+\S+\s*)+)`", README.partition(words)[2])
    assert settings
    get_recipe(recipe).set(re.findall(r"--set\s+([^\s`]+)", settings[1]))


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
