"""Which runs a table is made of.

An arm means the same in every table, so tables of one scale share a folder and a run is never made twice: the levers
branch off the first stages that the pilot trained.
"""

from __future__ import annotations

from typing import NamedTuple

from evensphere.errors import InputError, unknown_name
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.reproduce import SCALES, TABLES
from evensphere.rundir import Split


class Arm(NamedTuple):
    """One row of a table. recipe_arm: see recipes.ARMS. settings: what is changed in the recipe. branch: the arm whose
    first stage it shares, if any."""

    title: str
    recipe_arm: str
    settings: tuple[str, ...] = ()
    branch: str | None = None


class Table(NamedTuple):
    """arms: by name, in reading order. contrasts: (first, second) pairs whose difference is shown. split: the images
    that its runs are scored on; a table that settings are chosen by never sees the test images."""

    arms: tuple[str, ...]
    contrasts: tuple[tuple[str, str], ...]
    split: Split


class Scale(NamedTuple):
    """recipe: by name. settings: what is changed in it. largest: images of the largest class, for each of SKEWS, that
    make a set about as large as the recipe's own."""

    recipe: str
    settings: tuple[str, ...]
    largest: dict[str, int]


class Cell(NamedTuple):
    """One run of a table. folder: below the scale's. branch: the folder whose first stage it shares, if any."""

    folder: str
    arm: str
    recipe: Recipe
    branch: str | None


# other imbalances than the recipe's own, always with as many images in all
SKEWS = {
    "ir1": ("no imbalance", ("data.imbalance=1",)),
    "ir10": ("imbalance 10", ("data.imbalance=10",)),
    "step": ("two steps, imbalance 100", ("data.imbalance=100", "data.profile=step")),
}


def _pair(name: str, title: str, *settings: str) -> dict[str, Arm]:
    """GH and its control on changed data or another method; they share a first stage of their own."""
    return {
        f"{name}-two-stage": Arm(f"two-stage rate, {title}", "two-stage", settings, branch=f"{name}-gh"),
        f"{name}-gh": Arm(f"GH, {title}", "gh", settings),
    }


def _lever(title: str, *settings: str) -> Arm:
    return Arm(f"GH, {title}", "gh", tuple(f"harmonizer.{setting}" for setting in settings), branch="gh")


LEVERS = {
    "gh-weight-0.3": _lever("weight 0.3", "weight=0.3"),
    "gh-weight-3": _lever("weight 3", "weight=3.0"),
    "gh-uniform": _lever("equal shares for pi", "prior=uniform"),
    "gh-anchors-10": _lever("10 anchors", "anchors=10"),
    "gh-anchors-30": _lever("30 anchors", "anchors=30"),
    "gh-anchors-300": _lever("300 anchors", "anchors=300"),
    "gh-streaming": _lever("streaming pi", "population=streaming"),
    # what it changes comes before the first stage's end, so it is trained whole; the learning rate stays as it is
    "gh-warm-up-0.25": Arm("GH, from a quarter on", "gh", ("harmonizer.warm_up=0.25",)),
    "gh-queue": _lever("2,048 past scores in Sinkhorn", "queue=2048"),
    "gh-sharp": _lever("gamma and epsilon halved", "prediction_temperature=0.05", "sinkhorn_temperature=0.025"),
}

ARMS = {
    # the base arm has a learning rate of its own from the first epoch on, so it shares nothing
    "base": Arm("base", "base"),
    "two-stage": Arm("two-stage rate, no GH", "two-stage", branch="gh"),
    "gh": Arm("GH", "gh"),
    "balanced": Arm("base, balanced data of the same size", "base", SKEWS["ir1"][1]),
    **LEVERS,
    **{name: arm for skew, (title, settings) in SKEWS.items() for name, arm in _pair(skew, title, *settings).items()},
    "bcl-base": Arm("base, BCL", "base", ("method=bcl",)),
    **_pair("bcl", "BCL", "method=bcl"),
}

_TABLES = {
    "pilot": Table(
        ("base", "two-stage", "gh", "balanced"),
        (("gh", "two-stage"), ("gh", "base"), ("two-stage", "base"), ("balanced", "base")),
        "test",
    ),
    "levers": Table(
        ("two-stage", "gh", *LEVERS),
        (("gh", "two-stage"), *((lever, "two-stage") for lever in LEVERS), *((lever, "gh") for lever in LEVERS)),
        "validation",
    ),
    "skew": Table(
        (*(f"{skew}-{arm}" for skew in SKEWS for arm in ("two-stage", "gh")), "two-stage", "gh"),
        (*((f"{skew}-gh", f"{skew}-two-stage") for skew in SKEWS), ("gh", "two-stage")),
        "test",
    ),
    "methods": Table(
        ("base", "two-stage", "gh", "bcl-base", "bcl-two-stage", "bcl-gh"),
        (
            *(("gh", "two-stage"), ("bcl-gh", "bcl-two-stage"), ("bcl-gh", "bcl-base")),
            *(("bcl-base", "base"), ("bcl-two-stage", "two-stage")),
        ),
        "test",
    ),
}

# tables of measures (see reproduce/measures.py), of the same runs
_MEASURED_ARMS = ("base", "two-stage", "gh", "balanced", "bcl-base", "bcl-two-stage", "bcl-gh")
_MEASURED_CONTRASTS = (("gh", "two-stage"), ("gh", "base"), ("bcl-gh", "bcl-two-stage"))
_TABLES |= {
    "uniformity": Table(_MEASURED_ARMS, _MEASURED_CONTRASTS, "test"),
    "transfer": Table(_MEASURED_ARMS, _MEASURED_CONTRASTS, "test"),
    "supervised": Table(("two-stage", "gh"), (("gh", "two-stage"),), "test"),
    "population": Table(("gh",), (), "test"),
}

_LARGEST_OF_DIGITS = {"ir1": 37, "ir10": 93, "step": 73}
_LARGEST_OF_CIFAR = {"ir1": 98, "ir10": 250, "step": 194}

_SCALES = {
    "tiny": Scale(
        "digits-lt", ("epochs=6", "backbone.width=8", "batch_size=64", "evaluate_every=3 epochs"), _LARGEST_OF_DIGITS
    ),
    "small": Scale("cifar100-lt-small", (), _LARGEST_OF_CIFAR),
    "paper": Scale("cifar100-lt", (), _LARGEST_OF_CIFAR),
}


def get_table(name: str) -> Table:
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    return _TABLES[name]


def table_cells(table: str, scale: str, seeds: int, data: str | None) -> list[Cell]:
    """The cells of a table in the order to run them. Raises InputError for an unknown name or no seeds."""
    arms = get_table(table).arms
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    if seeds < 1:
        raise InputError(f"{seeds} seeds were given; a table needs at least 1, and 3 for a claim.")
    stems_first = sorted(arms, key=lambda arm: ARMS[arm].branch is not None)
    return [_cell(arm, _SCALES[scale], seed, data) for seed in range(seeds) for arm in stems_first]


def _cell(arm: str, scale: Scale, seed: int, data: str | None) -> Cell:
    recipe_arm, changes, branch = ARMS[arm][1:]
    settings = [*scale.settings, f"seed={seed}", *changes]
    skew = "ir1" if arm == "balanced" else arm.partition("-")[0]
    if skew in scale.largest:
        settings.append(f"data.largest={scale.largest[skew]}")
    if scale.recipe == "digits-lt":  # which digits are rare must not be the same in every run
        settings.append(f"data.seed={seed}")
    recipe = with_data(get_recipe(scale.recipe, recipe_arm), *([] if data is None else [data])).set(settings)
    return Cell(f"{arm}-seed{seed}", arm, recipe, None if branch is None else f"{branch}-seed{seed}")
