"""Who is compared: two arms, paired by seed, that differ in something and not in too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from evensphere.errors import InputError
from evensphere.report.arms import Arm, group_arms, own_images, settings_of
from evensphere.report.record import RunRecord, read_runs
from evensphere.report.wording import listing

# What changes along with something else without being meant: said, not refused.
_ALONGSIDE = {
    "schedule": "the learning rate differs too, and has its part in the difference (GH's control is the arm two-stage)",
    "epochs": "one side was trained for longer",
    "batch_size": "the batches differ too",
    "precision": "the precision differs too",
    "storage": "one side decoded its images once, perhaps smaller, and the other each time at full size",
}


class Sides(NamedTuple):
    """What is to be compared: the first against the second.

    names: of both. pairs: a run of each, for every seed. differing: what sets the recipes apart, (first's, second's).
    cautions: what a reader must know, one sentence each.
    """

    names: tuple[str, str]
    pairs: list[tuple[RunRecord, RunRecord]]
    differing: dict[str, tuple[Any, Any]]
    cautions: list[str]

    @property
    def seeds(self) -> list[int]:
        return [first.recipe["seed"] for first, _ in self.pairs]


def two_sides(runs: Sequence[Path], first: Sequence[Path] = (), second: Sequence[Path] = ()) -> Sides:
    """Both sides of a comparison.

    runs: folders of two arms, told apart by their recipes (runs of an arm differ in their seed alone); the arm of the
        first folder is the first side. first, second: folders that are meant to be of that side.
    Raises InputError where the runs are no two arms, or differ in their data and in something else besides.
    """
    a, b = _two_arms([*first, *runs, *second])
    for name, folders, arm in (("--a", first, a), ("--b", second, b)):
        members = {run.folder.resolve() for run in arm.runs}
        strangers = [folder for folder in folders if folder.resolve() not in members]
        if strangers:
            raise InputError(
                f"{strangers[0]} was given for {name}, but it is no run of its arm ({arm.label}), whose runs differ in "
                "their seed alone."
            )
    differing = _differing(a.runs[0], b.runs[0])
    cautions = _confounding(differing, a, b)
    pairs, unpaired = _paired(a, b)
    return Sides((a.label, b.label), pairs, differing, [*cautions, *unpaired])


def _two_arms(folders: Sequence[Path]) -> tuple[Arm, Arm]:
    """The first of them is that of the first folder."""
    if len(folders) < 2:
        raise InputError("Give two or more run folders to compare, or several seeds with --a RUN... --b RUN...")
    arms = group_arms(_usable(folders))
    if len(arms) == 1:
        raise InputError(
            "These runs differ in nothing but their seed; give runs of two arms, such as one with --arm gh and one "
            "with --arm two-stage."
        )
    if len(arms) > 2:
        labels = listing([arm.label for arm in arms])
        raise InputError(f"These runs are of {len(arms)} arms ({labels}); give those of two.")
    place = folders[0].resolve()
    return (arms[0], arms[1]) if any(run.folder.resolve() == place for run in arms[0].runs) else (arms[1], arms[0])


def _usable(folders: Sequence[Path]) -> list[RunRecord]:
    records = read_runs(folders)
    for record in records:
        if not record.recipe:
            reasons = " ".join(record.problems) or "recipe.json is empty."
            raise InputError(f"{record.folder} cannot be compared: {reasons}")
    return records


def _differing(first: RunRecord, second: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Setting -> what it is on either side.

    The options of parts of different names are not compared.
    """
    mine, theirs = settings_of(first), settings_of(second)
    mine["name"], theirs["name"] = first.recipe["name"], second.recipe["name"]
    fields = [field for field in sorted(mine.keys() | theirs.keys()) if mine.get(field) != theirs.get(field)]
    renamed = {field.removesuffix("name") for field in fields if field.endswith(".name")}  # "harmonizer."
    return {
        field: (mine.get(field), theirs.get(field))
        for field in fields
        if field.endswith("name") or not field.startswith(tuple(renamed))
    }


def _confounding(differing: dict[str, tuple[Any, Any]], a: Arm, b: Arm) -> list[str]:
    """Cautions; raises InputError where nobody could say what a difference came from."""
    parts = {field.split(".")[0] for field in differing} - {"name"}
    others = parts - {"data", "images"}
    other_data = _other_data(differing, a.runs[0], b.runs[0])
    chosen = others - {"storage"}  # which "auto" decides by the images and the machine
    if other_data and chosen:
        raise InputError(
            f"The two sides were pretrained on different images ({other_data}) and differ in {listing(sorted(chosen))} "
            "too, so nobody could say what a difference came from; compare runs on the same images."
        )
    cautions = [f"pretrained on different images ({other_data}): the data is what is compared"] if other_data else []
    rest = others - set(_ALONGSIDE)
    return cautions + [said for part, said in _ALONGSIDE.items() if part in others and (rest or other_data)]


def _other_data(differing: dict[str, tuple[Any, Any]], first: RunRecord, second: RunRecord) -> str:
    """In which way the images that the sides were pretrained on differ; empty if they do not."""
    fields = [field for field in differing if field.split(".")[0] in ("data", "images") and field != "data.path"]
    if fields:
        return listing([f"{field} {differing[field][0]} and {differing[field][1]}" for field in fields])
    images = [record.resolved.get("num_images") for record in (first, second)]
    if images[0] != images[1]:
        return f"{images[0]} and {images[1]} of them"
    digests = [own_images(record) for record in (first, second)]
    return "other files" if all(digests) and digests[0] != digests[1] else ""


def _paired(a: Arm, b: Arm) -> tuple[list[tuple[RunRecord, RunRecord]], list[str]]:
    """Runs of the same seed, and what is to be said of those without a partner."""
    mine, theirs = ({run.recipe["seed"]: run for run in arm.runs} for arm in (a, b))
    shared = sorted(mine.keys() & theirs.keys())
    if not shared and len(mine) == len(theirs) == 1:
        (one,), (other,) = mine, theirs
        said = f"the seeds differ, {one} and {other}, and what a seed does is part of the difference"
        return [(mine[one], theirs[other])], [said]
    if not shared:
        seeds = [listing([str(seed) for seed in side]) for side in (mine, theirs)]
        raise InputError(
            f"The sides have no seed in common ({seeds[0]}; {seeds[1]}); train both arms with the same seeds."
        )
    alone = [str(seed) for seed in sorted(mine.keys() ^ theirs.keys())]
    said = f"without a partner and left out: seed {listing(alone)}"
    return [(mine[seed], theirs[seed]) for seed in shared], [said] if alone else []
