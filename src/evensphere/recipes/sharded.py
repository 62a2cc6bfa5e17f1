"""Which runs can be trained with parameters in parts (see engine/sharding.py): the ones that a test has compared with
one process. All others are refused in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from evensphere.engine.sharding import can_be_sharded, is_possible
from evensphere.errors import InputError
from evensphere.recipes.recipe import Recipe

METHODS, OPTIMIZERS = ("simclr", "dino"), ("sgd", "adamw")


def check_recipe(recipe: Recipe, branch: Path | str | None = None) -> None:
    """Raises InputError for what a recipe says that cannot be trained so. branch: see `recipes.run.train`."""
    if not is_possible():
        raise InputError(f"sharding was given, which needs a newer torch than {torch.__version__}; leave it out.")
    unfit = {
        f"the method {recipe.method.name}": recipe.method.name not in METHODS,
        f"the optimizer {recipe.optimizer.name}": recipe.optimizer.name not in OPTIMIZERS,
        f"micro_batches = {recipe.micro_batches}": recipe.micro_batches > 1,
        "compile=true": recipe.compile,
        "stages": recipe.stages is not None,
        "--branch": branch is not None,
    }
    for what, is_given in unfit.items():
        if is_given:
            _refuse(what)


def check_encoder(recipe: Recipe, encoder: nn.Module) -> None:
    """Raises InputError for an encoder whose parameters cannot lie in parts."""
    if not can_be_sharded(encoder):
        _refuse(f"the backbone {recipe.backbone.name}")


def _refuse(what: str) -> NoReturn:
    raise InputError(
        f"sharding was given with {what}; it is experimental, and takes the methods {' and '.join(METHODS)} on a ViT "
        f"of timm with the optimizers {' and '.join(OPTIMIZERS)} alone, in one piece; leave it out."
    )
