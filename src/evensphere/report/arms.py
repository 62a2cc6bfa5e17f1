"""From records to arms: runs that differ only in their seed, what they score, and how two arms differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from evensphere.data.kinds import OWN
from evensphere.report.record import Json, RunRecord, part
from evensphere.report.wording import NBSP


class Spread(NamedTuple):
    """Mean and sample standard deviation (ddof 1, None for one value) over `seeds` seeds.

    interval: of one seed's score, where 95 % of those for other test images would lie; None where that is not known.
    """

    mean: float
    std: float | None
    seeds: int
    interval: tuple[float, float] | None = None

    @property
    def bar(self) -> tuple[float, float]:
        """What an error bar spans: the deviation over seeds, else the interval, else nothing."""
        if self.std is None and self.interval is not None:
            return self.interval
        return self.mean - (self.std or 0), self.mean + (self.std or 0)

    @property
    def text(self) -> str:
        if self.std is not None:
            return f"{self.mean:.1f}{NBSP}±{NBSP}{self.std:.1f}"
        if self.interval is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} [{self.interval[0]:.1f}{NBSP}to{NBSP}{self.interval[1]:.1f}]"

    @property
    def signed(self) -> str:
        """With its sign; what rounds to zero has a plus."""
        sign = "\N{MINUS SIGN}" if round(self.mean, 1) < 0 else "+"
        return sign + self._replace(mean=abs(self.mean)).text


def spread(values: Iterable[float | None]) -> Spread | None:
    """The Spread of the values that exist; None without any."""
    known = [value for value in values if value is not None]
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known)) if known else None


class Look(NamedTuple):
    """How an arm is drawn: its colour, and one shape in plotly's, HTML's and matplotlib's terms."""

    color: str
    symbol: str
    character: str
    marker: str


# Okabe & Ito's colours, those with a contrast of 3:1 on both white and near-black first.
_LOOKS = {
    "base": Look("#D55E00", "square", "■", "s"),
    "two-stage": Look("#009E73", "diamond", "◆", "D"),
    "gh": Look("#0072B2", "circle", "●", "o"),
}
_SPARE_LOOKS = (
    Look("#CC79A7", "triangle-up", "▲", "^"),
    Look("#E69F00", "triangle-down", "▼", "v"),
    Look("#56B4E9", "cross", "✚", "P"),
    Look("#8C8C8C", "x", "✖", "X"),
)
_LABELS = {"base": "without GH", "two-stage": "two-stage rate without GH", "gh": "with GH"}


@dataclass(frozen=True)
class Arm:
    """Runs that differ only in their seed, one run a seed, with the label and look they have everywhere on the page."""

    recipe: str  # its name
    kind: str  # what recipe.json calls "arm": gh, base, two-stage or a word of the user's
    label: str
    look: Look
    runs: tuple[RunRecord, ...]

    def scores(self, metric: str, key: str) -> dict[int, float]:
        """Seed -> percent."""
        found = {run.recipe["seed"]: run.score(metric, key) for run in self.runs}
        return {seed: value for seed, value in found.items() if value is not None}

    def spread(self, metric: str, key: str) -> Spread | None:
        """Over the seeds; of a single one with its interval."""
        found = spread(self.scores(metric, key).values())
        if found is None or found.seeds > 1:
            return found
        run = next(run for run in self.runs if run.score(metric, key) is not None)
        return found._replace(interval=run.interval(metric, key))


_Key = tuple[str, str, str]  # what an arm's runs share: recipe name, arm and, as JSON, settings


def group_arms(records: Sequence[RunRecord]) -> list[Arm]:
    """Arms in reading order: by recipe name as given, then base, two-stage, gh, others.

    Runs of one (name, arm) that differ in more than the seed, such as an ablation's, become arms of their own and are
    labelled with what differs: their mean would mean nothing. Of two runs with the same seed the first is kept.
    """
    members: dict[_Key, dict[int, RunRecord]] = {}
    for record in (record for record in records if record.recipe):
        key = (record.recipe["name"], record.recipe["arm"], json.dumps(settings_of(record), sort_keys=True))
        members.setdefault(key, {}).setdefault(record.recipe["seed"], record)
    names = list(dict.fromkeys(name for name, _, _ in members))
    kinds = list(dict.fromkeys([*_LOOKS, *(kind for _, kind, _ in members)]))
    keys = sorted(members, key=lambda key: (names.index(key[0]), kinds.index(key[1])))
    looks, spare_looks = dict(_LOOKS), cycle(_SPARE_LOOKS)
    arms = []
    for key in keys:
        name, kind, _ = key
        look = looks.pop(kind) if kind in looks else next(spare_looks)
        runs = tuple(run for _, run in sorted(members[key].items()))
        arms.append(Arm(name, kind, _label(key, keys), look, runs))
    return arms


# what a recipe says of a run but not of what it learnt: how it is called, watched, kept and sped up
_SILENT = frozenset(
    {"name", "arm", "seed", "summary", "workers", "resolved", "metrics", "monitor"}
    | {"evaluate_every", "checkpoint_every", "snapshot_every", "keep_checkpoints"}
)

# what a recipe that was written before there was a choice means by its silence: as in `Recipe.from_json`
BEFORE_THERE_WAS_A_CHOICE: Json = {"storage": "files", "near_duplicates": "each", "micro_batches": 1, "compile": False}


def settings_of(record: RunRecord) -> Json:
    """Everything that can change a result but the seeds (of run and data), flat: {"harmonizer.weight": 1.0, ...}.

    record: its recipe has a name, an arm and a seed. Of where files were kept: whether they were decoded anew each
    time, at full size. Of a path: see `_images_at`.
    """
    settings: Json = {}

    def flatten(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                flatten(f"{prefix}.{key}".replace(".options", ""), item)
        elif not prefix.endswith(".seed") and value is not None:  # an option that came later is None before
            settings[prefix] = value

    for top, value in (BEFORE_THERE_WAS_A_CHOICE | record.recipe).items():
        if top not in _SILENT:
            flatten(top, value)
    # files or streams: all else is an array, which is in memory whatever the recipe says
    in_files = bool(record.images) or settings.get("data.name") in ("shards", "hub")
    settings["storage"] = "files" if in_files and settings.get("storage") == "files" else "decoded once"
    if "data.path" in settings:
        settings["data.path"] = _images_at(settings["data.path"], record)
    return settings


def _images_at(path: object, record: RunRecord) -> str:
    """Which images a path stands for, wherever it lies: its last names, how many images there were, and which."""
    paths = path if isinstance(path, list) else [path]
    names = " + ".join(Path(str(one)).name for one in paths)
    images = f"{record.resolved.get('num_images')} images"
    return f"{names} ({images}, list {digest})" if (digest := own_images(record)) else f"{names} ({images})"


def own_images(record: RunRecord) -> str:
    """A digest of the run's images; empty where it is not known, or says nothing of the data.

    The seed of a data set may draw which of its images a run has, and runs that differ in that are of one arm. Of
    anybody's own collections it draws the test images alone: all train.
    """
    data = part(record.recipe, "data")
    name = str(data.get("name"))
    own_code = ":" in name and "seed" not in part(data, "options")
    return record.images if name in OWN or own_code else ""


def _label(key: _Key, keys: Sequence[_Key]) -> str:
    """What sets an arm apart from the others: its kind and, where needed, its recipe and settings."""
    name, kind, settings = key
    own = json.loads(settings)
    others = [json.loads(other) for *those, other in keys if those == [name, kind] and other != settings]
    differing = sorted({field for other in others for field in own | other if own.get(field) != other.get(field)})
    words = [name] if len({name for name, _, _ in keys}) > 1 else []
    words += [_LABELS.get(kind, kind), *(f"{field}={own.get(field, 'unset')}" for field in differing)]
    return ", ".join(words)


def runs_of(arms: Sequence[Arm]) -> list[tuple[Arm, RunRecord]]:
    """Every run with its arm."""
    return [(arm, run) for arm in arms for run in arm.runs]


def evaluated(arms: Sequence[Arm], metric: str) -> list[Arm]:
    """The arms that have a score by `metric`."""
    return [arm for arm in arms if arm.scores(metric, "average")]


def main_metric(arms: Sequence[Arm]) -> str | None:
    """What summary and pictures go by: the first metric that most arms have; None without labels."""
    best = max(("probe", "probe_paper", "knn"), key=lambda metric: len(evaluated(arms, metric)))
    return best if evaluated(arms, best) else None


class Pair(NamedTuple):
    """Two arms to compare by what `metric` scored for the seeds that both have."""

    treated: Arm
    control: Arm
    metric: str

    def shared(self, key: str) -> list[tuple[float, float]]:
        """The scores (treated, control) of each seed that both have."""
        treated, control = (arm.scores(self.metric, key) for arm in (self.treated, self.control))
        return [(treated[seed], control[seed]) for seed in treated if seed in control]

    def differences(self, key: str) -> list[float]:
        """Treated minus control in points, seed by seed."""
        return [treated - control for treated, control in self.shared(key)]


def pairs(arms: Sequence[Arm], metric: str) -> list[Pair]:
    """What to compare: GH with all arms of its recipe that lack it; where there is no such pair, all with the first."""
    scored = evaluated(arms, metric)
    with_gh = [arm for arm in scored if arm.kind == "gh"]
    without = [arm for arm in scored if arm.kind != "gh"]
    fair = [Pair(arm, other, metric) for arm in with_gh for other in without if other.recipe == arm.recipe]
    return fair or [Pair(arm, scored[0], metric) for arm in scored[1:]]


class ClassScores(NamedTuple):
    """One class: its number of training images, and for each arm (by label) the spread of its accuracy."""

    name: str
    images: int
    spreads: dict[str, Spread | None]


def class_scores(arms: Sequence[Arm], metric: str) -> list[ClassScores]:
    """Classes from rarest to most common, scored by the runs that have the first evaluated run's classes."""
    classes = next((run.classes for _, run in runs_of(arms) if run.classes), [])
    alike = {arm.label: [run for run in arm.runs if run.classes == classes] for arm in arms}
    found = []
    for i, (name, images) in enumerate(classes):
        spreads = {label: spread(run.class_score(metric, i) for run in runs) for label, runs in alike.items()}
        if any(spreads.values()):
            found.append(ClassScores(name, images, spreads))
    return sorted(found, key=lambda row: row.images)
