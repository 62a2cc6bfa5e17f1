"""Which runs a table is made of."""

from __future__ import annotations

from typing import NamedTuple

from evensphere.errors import InputError, unknown_name
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.reproduce import SCALES, TABLES

# what a scale is: the recipe, and what is changed in it
_RECIPES: dict[str, tuple[str, list[str]]] = {
    "tiny": ("digits-lt", ["epochs=6", "backbone.width=8", "batch_size=64", "evaluate_every=3 epochs"]),
    "small": ("cifar100-lt-small", []),
    "paper": ("cifar100-lt", []),
}


class Cell(NamedTuple):
    """One run of a table. folder: below the table's. branch: the cell whose first stage it shares, if any."""

    folder: str
    recipe: Recipe
    branch: str | None


def table_cells(table: str, scale: str, seeds: int, data: str | None) -> list[Cell]:
    """The cells of a table in the order to run them. Raises InputError for an unknown name or no seeds."""
    if table not in TABLES:
        raise unknown_name("table", table, TABLES)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    if seeds < 1:
        raise InputError(f"{seeds} seeds were given; a table needs at least 1, and 3 for a claim.")
    return [cell for seed in range(seeds) for cell in _three_arms(scale, seed, data)]


def _three_arms(scale: str, seed: int, data: str | None) -> list[Cell]:
    """GH first: the control shares its first stage, which up to the stage change is the same run. The base arm has a
    learning rate of its own from the first epoch on, so it shares nothing."""
    name, settings = _RECIPES[scale]
    settings = [*settings, f"seed={seed}"]
    if name == "digits-lt":  # which digits are rare must not be the same in every run
        settings.append(f"data.seed={seed}")
    recipes = {arm: with_data(get_recipe(name, arm), data).set(settings) for arm in ("gh", "two-stage", "base")}
    harmonized = f"gh-seed{seed}"
    return [
        Cell(harmonized, recipes["gh"], None),
        Cell(f"two-stage-seed{seed}", recipes["two-stage"], harmonized),
        Cell(f"base-seed{seed}", recipes["base"], None),
    ]
