"""examples/own_data.py: data from outside the package trains, and is evaluated where it has labels."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from evensphere.errors import InputError
from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "own_data", raising=False)


def recipe_on(data: Part) -> Recipe:
    small = ["epochs=1", "backbone=resnet-small", "backbone.width=4", "backbone.stages=1", "workers=0", "metrics=knn"]
    return replace(get_recipe("folder").set(small), data=data)


def test_it_is_short() -> None:
    assert len((ROOT / "examples" / "own_data.py").read_text().splitlines()) <= 60


def test_arrays_of_a_program_train_and_are_evaluated(tmp_path: Path) -> None:
    digits = load_digits(n_class=3)
    pictures = (digits.images[:60] * 15).astype(np.uint8).repeat(4, 1).repeat(4, 2)[..., None].repeat(3, 3)
    np.savez(tmp_path / "pictures.npz", pictures=pictures, kinds=digits.target[:60])
    recipe = recipe_on(Part("own_data:arrays", path=str(tmp_path / "pictures.npz")))
    run = RunDir(train(recipe, tmp_path / "run"))
    assert run.read_recipe()["resolved"]["num_images"] == 60
    assert evaluate(run.path, trust=True)["classes"] == ["kind 0", "kind 1", "kind 2"]
    train(recipe, run.path, resume=True)


def test_a_torch_dataset_trains(tmp_path: Path) -> None:
    run = RunDir(train(recipe_on(Part("own_data:dataset")), tmp_path / "run"))
    assert run.read_images()[-1] == "digits[99]"
    assert run.read_recipe()["views"]["options"]["size"] == 32


def test_a_name_that_cannot_be_imported_is_one_sentence() -> None:
    with pytest.raises(InputError, match="The data 'own_data:pictures' cannot be imported"):
        recipe_on(Part("own_data:pictures"))
