"""A burst counts once: how much each image of a run counts in the population statistics.

Which images belong together is known from a column that says so (see `Source.groups`), or else found out by comparing
them (data/duplicates.py) in the one look that is taken at every image anyway. It is a recipe's choice:

    near_duplicates=once    each group counts once
    near_duplicates=each    each image counts for itself
    near_duplicates=auto    once for anybody's own images and wherever a column says what belongs together; each for the
                            named data sets and arrays, whose images are taken as they are, and for streams, which are
                            not looked at
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int64
from rich.console import Console
from torch import Tensor

from evensphere.data.duplicates import Fingerprints, burst_weights
from evensphere.data.kinds import OWN
from evensphere.data.source import ArraySource, Source
from evensphere.data.stream import Stream
from evensphere.errors import InputError
from evensphere.recipes.recipe import Recipe
from evensphere.rundir import RunDir

Groups = Int64[Tensor, " n"]


def counts_once(recipe: Recipe, source: Source) -> bool:
    """Whether the groups of a source's images, given or found out, count once each in a run of the recipe."""
    if recipe.near_duplicates != "auto":
        return recipe.near_duplicates == "once"
    return source.groups() is not None or (recipe.data.name in OWN and not isinstance(source, ArraySource | Stream))


def fingerprints_for(recipe: Recipe, source: Source) -> Fingerprints | None:
    """What the look at every image is to collect; None where nobody would ask for it."""
    if recipe.harmonizer.name == "none" or source.groups() is not None or not counts_once(recipe, source):
        return None
    return Fingerprints(len(source))


def group_bursts(
    recipe: Recipe, source: Source, fingerprints: Fingerprints | None, console: Console
) -> tuple[Recipe, Groups | None]:
    """(the recipe with its choice made, the group of each image or None if each counts for itself).

    source: the readable images. Raises InputError if bursts were to count once and the images could not be compared.
    """
    once = counts_once(recipe, source)
    groups = source.groups()
    if fingerprints is not None and not fingerprints.seen.any():  # the images are read as they come
        if recipe.near_duplicates == "once":
            raise InputError(
                f"near_duplicates=once was given, but {source.name} cannot be looked at before training; leave it out, "
                "or give the images as a folder, a list or an archive."
            )
        once = False
    elif fingerprints is not None:
        groups = fingerprints.groups()
    if not once or recipe.harmonizer.name == "none":
        groups = None
    if groups is not None:
        _say(groups, console)
    return replace(recipe, near_duplicates="once" if once else "each"), groups


def groups_of(run: RunDir) -> Groups | None:
    """The groups that a run was begun with."""
    groups = run.read_groups()
    return None if groups is None else torch.tensor(groups, dtype=torch.int64)


def weights_of(groups: Groups | None) -> Float[Tensor, " n"] | None:
    """The harmonizer's `sample_weights`."""
    return None if groups is None else burst_weights(groups)


def _say(groups: Groups, console: Console) -> None:
    sizes = torch.bincount(groups)
    bursts = sizes[sizes > 1]
    if len(bursts):
        console.print(
            f"{int(bursts.sum()):,} images in {len(bursts):,} bursts of near-duplicates count once in the population "
            "statistics (--set near_duplicates=each counts every image)."
        )
