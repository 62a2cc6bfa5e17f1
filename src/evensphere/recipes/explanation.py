"""Why a run is as it is: each choice that was made for the user, and what the numbers come to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from evensphere.recipes.recipe import Recipe
from evensphere.recipes.run import resolve


class Choice(NamedTuple):
    """A setting as `--set` names it, its value, and why."""

    setting: str
    value: str
    why: str


def explain(recipe: Recipe) -> list[Choice]:
    """What a run of a recipe would do and why, without a run (see `resolve`).

    First what was left open and is decided from the data, then length and harmonization in steps.
    Raises InputError for a recipe or data that cannot be used.
    """
    resolved = resolve(recipe)
    reasons = resolved.resolved.get("because", {})
    decided = [
        Choice(setting, _value(resolved, setting), reason) for setting, reason in reasons.items() if setting != "epochs"
    ]
    return [*decided, _length(resolved, reasons.get("epochs")), *_harmonization(resolved)]


def _value(recipe: Recipe, setting: str) -> str:
    if setting == "harmonizer.anchors":  # the only one that recipe.json leaves open
        return str(recipe.resolved["anchors"])
    part, dot, option = setting.partition(".")
    chosen = getattr(recipe, part)
    return str(chosen.options[option] if dot else chosen)


def _length(recipe: Recipe, reason: str | None) -> Choice:
    """reason: why it is so long, if that was left open."""
    facts = recipe.resolved
    steps, per_epoch, images = (facts[name] for name in ("total_steps", "steps_per_epoch", "num_images"))
    why = (
        f"{f'{reason}: ' if reason else ''}{steps:,} steps, {per_epoch:,} in each epoch of {images:,} images. "
        "The paper has 1,000 epochs for CIFAR-100-LT and 500 for its large sets; `evensphere diagnose` tells when a "
        "run was too short"
    )
    return Choice("epochs", str(recipe.epochs), why)


def _harmonization(recipe: Recipe) -> Iterator[Choice]:
    facts, options = recipe.resolved, recipe.harmonizer.options
    if facts["anchors"] is None:
        yield Choice("harmonizer", "none", f"the arm {recipe.arm}: the method alone")
        return
    begin, ramp = facts["warm_up_steps"], facts["ramp_steps"]
    why = (
        f"GH acts from step {begin:,} of {facts['total_steps']:,}, fully from {begin + ramp:,}. The paper: half of the "
        "run (CIFAR), 4/5 of it (its large sets)"
    )
    yield Choice("harmonizer.warm_up", str(options.get("warm_up", "the default")), why)
    queue = options.get("queue", 0)
    share = (recipe.size.batch_size + queue) / facts["anchors"]
    why = (
        f"{share:.1f} images to a region in each of Sinkhorn's problems (the paper: 5.1). "
        "Past scores can take part, which changed nothing where it was measured (docs/choosing.md: batches of 16 and "
        "256)"
    )
    yield Choice("harmonizer.queue", str(queue), why)


def print_explanation(choices: list[Choice], console: Console) -> None:
    """The choices as a table."""
    table = Table("setting", "value", "why", title="Change any of them with --set SETTING=VALUE", title_justify="left")
    for choice in choices:
        table.add_row(*choice, end_section=True)
    console.print(table)
