"""Which runs a table is made of.

An arm means the same in every table, so tables of one scale share a folder and a run is never made twice: the levers
branch off the first stages that the pilot trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from evensphere.errors import InputError, unknown_name
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.reproduce import DIRECT, SCALES, TABLES
from evensphere.reproduce.arms import ARMS, BASELINES, FAMILIES, IMBALANCES, LEVERS, SKEWS
from evensphere.rundir import Split

_KINDS = ("base", "two-stage", "gh")


class Table(NamedTuple):
    """arms: by name, in reading order. contrasts: (first, second) pairs whose difference is shown. split: the images
    that its runs are scored on; a table that settings are chosen by never sees the test images.

    recipe: at the scale paper, of a table that is on a data set of its own; it has no scale small then. apart: whether
    curves are drawn family by family, there being too many arms for one picture.
    """

    arms: tuple[str, ...]
    contrasts: tuple[tuple[str, str], ...]
    split: Split
    recipe: str | None = None
    apart: bool = False


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


def arm_of(folder: str) -> str:
    """The arm that the folder of a cell is of, by its name; "" for a folder that no cell has."""
    return folder.rpartition("-seed")[0]


# --- tables -----------------------------------------------------------------------------------------------------------


def _in_threes(*stems: str, recipe: str | None = None) -> Table:
    """Three arms of each stem: GH against its control, and against what is usual."""
    arms = {stem: [f"{stem}-{kind}" if stem else kind for kind in _KINDS] for stem in stems}
    contrasts = [(gh, other) for base, control, gh in arms.values() for other in (control, base)]
    return Table(tuple(arm for three in arms.values() for arm in three), tuple(contrasts), "test", recipe, apart=True)


def _in_pairs(*stems: str) -> Table:
    """GH and its control of each stem."""
    pairs = [(f"{stem}-gh", f"{stem}-two-stage") if stem else ("gh", "two-stage") for stem in stems]
    return Table(tuple(arm for gh, control in pairs for arm in (control, gh)), tuple(pairs), "test", apart=True)


def _large(name: str) -> Table:
    return _in_threes(name, *(f"{name}-{method}" for method in BASELINES), recipe=name)


_TABLES = {
    "pilot": Table(
        ("base", "two-stage", "gh", "balanced"),
        (("gh", "two-stage"), ("gh", "base"), ("two-stage", "base"), ("balanced", "base")),
        "test",
    ),
    "levers": Table(
        ("two-stage", "gh", *LEVERS, "batch-128-two-stage", "batch-128-gh"),
        (
            *(("gh", "two-stage"), *((lever, "two-stage") for lever in LEVERS), *((lever, "gh") for lever in LEVERS)),
            *(("batch-128-gh", "batch-128-two-stage"), ("batch-128-gh", "gh")),
        ),
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
    "cifar100": _in_threes(
        *("", *BASELINES),
        *(stem for ratio in IMBALANCES for stem in (ratio, *(f"{ratio}-{method}" for method in BASELINES))),
    ),
    "imagenet-lt": _large("imagenet-lt"),
    "places-lt": _large("places-lt"),
    "families": _in_pairs("", *FAMILIES),
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

# --- scales -----------------------------------------------------------------------------------------------------------

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
    """Raises InputError for a name that is none, or that of a table without cells."""
    if name not in TABLES:
        raise unknown_name("table", name, TABLES)
    if name in DIRECT:
        raise InputError(f"The table {name} has no runs; `evensphere reproduce {name}` measures it anew.")
    return _TABLES[name]


def scale_of(name: str) -> Scale:
    """Raises InputError for an unknown name."""
    if name not in SCALES:
        raise unknown_name("scale", name, SCALES)
    return _SCALES[name]


def has_scale(table: str, scale: str) -> bool:
    """Whether a table has cells at that scale: one on a large data set has none between digits and the paper's."""
    return get_table(table).recipe is None or scale != "small"


def table_cells(table: str, scale: str, seeds: int, data: str | None) -> list[Cell]:
    """The cells of a table in the order to run them. Raises InputError for an unknown name, no seeds, or a scale that
    the table does not have."""
    arms, own_recipe = get_table(table).arms, get_table(table).recipe
    found = scale_of(scale)
    check_seeds(seeds)
    if not has_scale(table, scale):
        raise InputError(
            f"The table {table} has no scale {scale}; give --scale paper with --data PATH, the folder of the images, "
            "or --scale tiny, which checks the machinery on digits."
        )
    if own_recipe is not None and scale == "paper":
        found = found._replace(recipe=own_recipe)
    return list(_cells(arms, found, seeds, data))


def check_seeds(seeds: int) -> None:
    """Raises InputError for none."""
    if seeds < 1:
        raise InputError(f"{seeds} seeds were given; a table needs at least 1, and 3 for a claim.")


def _cells(arms: tuple[str, ...], scale: Scale, seeds: int, data: str | None) -> Iterator[Cell]:
    stems_first = sorted(arms, key=lambda arm: ARMS[arm].branch is not None)
    for seed in range(seeds):
        for arm in stems_first:
            yield _cell(arm, scale, seed, data)


def _cell(name: str, scale: Scale, seed: int, data: str | None) -> Cell:
    arm = ARMS[name]
    settings = [*scale.settings, f"seed={seed}", *arm.settings]
    skew = "ir1" if name == "balanced" else name.partition("-")[0]
    if skew in scale.largest:
        settings.append(f"data.largest={scale.largest[skew]}")
    if scale.recipe == "digits-lt":  # which digits are rare must not be the same in every run
        settings.append(f"data.seed={seed}")
    recipe = with_data(get_recipe(scale.recipe, arm.recipe_arm), *([] if data is None else [data])).set(settings)
    branch = None if arm.branch is None else f"{arm.branch}-seed{seed}"
    return Cell(f"{name}-seed{seed}", name, _at_rate(recipe, arm.rate), branch)


def _at_rate(recipe: Recipe, rate: float) -> Recipe:
    """The recipe with its learning rates multiplied."""
    if rate == 1:
        return recipe
    options = recipe.schedule.options
    changed = {name: round(rate * options[name], 6) for name in ("learning_rate", "middle") if name in options}
    return replace(recipe, schedule=recipe.schedule.replace(**changed))
