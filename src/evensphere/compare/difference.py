"""How far two arms are apart on the same test images, by group of classes, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from evensphere.compare.sides import Sides, two_sides
from evensphere.engine.predictions import Predictions, read_predictions
from evensphere.errors import InputError
from evensphere.metrics.groups import GROUPS, class_groups
from evensphere.metrics.intervals import Interval, Paired, over_classes, paired, paired_interval, sign_flip_p
from evensphere.report.record import METRICS, RunRecord
from evensphere.report.wording import capital, count, listing
from evensphere.rundir import RunDir, Split

COLUMNS = (*GROUPS, "average")


class Difference(NamedTuple):
    """One group of classes, in percent and points.

    first, second: mean balanced accuracy of either side over the seeds. change: first minus second, with the interval
    for other seeds and other images (with one seed: for other images alone). p: of the sign-flip test on images, for
    these encoders. other_classes: the interval for other classes too; None if the seeds have different ones.
    """

    first: float
    second: float
    change: Interval
    p: float
    other_classes: Interval | None


class Comparison(NamedTuple):
    """The outcome: for each group that has test images its Difference, and how it came about."""

    sides: Sides
    metric: str
    split: Split | Literal["labelled"]
    images: int
    groups: dict[str, Difference]

    @property
    def sentence(self) -> str:
        """ "With GH against without GH: few +2.1 [0.4, 3.9], many -0.2 [-1.0, 0.6] points, 3 seeds." """
        first, second = self.sides.names
        order = [name for name in ("few", "medium", "many", "average") if name in self.groups]
        changes = ", ".join(f"{name} {spell_interval(self.groups[name].change)}" for name in order)
        return f"{capital(first)} against {second}: {changes} points, {count(len(self.sides.pairs), 'seed')}."

    @property
    def cautions(self) -> list[str]:
        """What a reader must know, one sentence each."""
        said = [capital(caution) + "." for caution in self.sides.cautions]
        if len(self.sides.pairs) == 1:
            said.append("One seed: the intervals are for other test images alone, not for other runs.")
        elif len(self.sides.pairs) < 3:
            said.append("Two seeds: no claim can rest on them; three are the least.")
        if not any(one.change.settled for one in self.groups.values()):
            said.append("Every interval contains 0: no group is known to differ.")
        return said

    def to_json(self) -> dict[str, Any]:
        names = [str(run.folder) for pair in self.sides.pairs for run in pair]
        return {
            "a": {"name": self.sides.names[0], "runs": names[::2]},
            "b": {"name": self.sides.names[1], "runs": names[1::2]},
            "differing": {field: list(values) for field, values in self.sides.differing.items()},
            "metric": self.metric,
            "split": self.split,
            "images": self.images,
            "seeds": len(self.sides.pairs),
            "groups": {name: _group_json(one) for name, one in self.groups.items()},
            "sentence": self.sentence,
            "cautions": self.cautions,
        }


def _group_json(one: Difference) -> dict[str, Any]:
    others = one.other_classes
    return {
        "a": one.first,
        "b": one.second,
        "difference": one.change.estimate,
        "interval": [one.change.low, one.change.high],
        "p": one.p,
        "interval_other_classes": None if others is None else [others.low, others.high],
    }


def spell_interval(change: Interval) -> str:
    """ "+2.1 [0.4, 3.9]" """
    return f"{change.estimate:+.1f} [{change.low:.1f}, {change.high:.1f}]"


def compare(
    runs: Sequence[Path | str] = (),
    first: Sequence[Path | str] = (),
    second: Sequence[Path | str] = (),
    metric: str | None = None,
    split: Split = "test",
) -> Comparison:
    """Compare two arms by what their runs predicted for the same images (`evaluate` keeps it).

    runs: folders of two arms; or `first` and `second`: of one arm each (see `sides.two_sides`).
    metric: which metric's predictions; None takes the first of the probe, the paper's probe and kNN that all have.
    Raises InputError where the sides cannot be compared: no predictions, other images, other classes, other data.
    """
    sides = two_sides(*([Path(folder) for folder in folders] for folders in (runs, first, second)))
    predictions = [(_predictions(first, split), _predictions(second, split)) for first, second in sides.pairs]
    metric = _metric(metric, sides, predictions)
    scored = [_Scored.of(*pair, *given, metric, split) for pair, given in zip(sides.pairs, predictions, strict=True)]
    same_images = all(one[0].same_images(predictions[0][0]) for one in predictions)
    groups = {name: _difference(scored, name, same_images) for name in COLUMNS}
    images = sum(len(one.labels) for one in scored) if not same_images else len(scored[0].labels)
    return Comparison(sides, metric, split, images, {name: one for name, one in groups.items() if one is not None})


# --- what was predicted -----------------------------------------------------------------------------------------------


class _Scored(NamedTuple):
    """What both runs of a pair made of the same images, and the classes of each group."""

    labels: Int64[np.ndarray, " n"]
    first: Int64[np.ndarray, " n"]
    second: Int64[np.ndarray, " n"]
    groups: dict[str, list[int]]

    @classmethod
    def of(
        cls, first: RunRecord, second: RunRecord, mine: Predictions, theirs: Predictions, metric: str, split: Split
    ) -> _Scored:
        if not mine.same_images(theirs):
            raise InputError(
                f"{first.folder} and {second.folder} were scored on different images or labels; "
                "evaluate both with the same --data."
            )
        results, others = (RunDir(run.folder).read_results(split) for run in (second, first))
        if not results or results["classes"] != others.get("classes"):
            raise InputError(
                f"{first.folder} and {second.folder} were scored on different classes; evaluate both again."
            )
        members = class_groups(results["train_counts"], results["group_rule"])
        groups = {name: [c for c, group in enumerate(members) if group == name] for name in GROUPS}
        groups["average"] = list(range(len(members)))
        return cls(mine.labels.numpy(), mine.predicted[metric].numpy(), theirs.predicted[metric].numpy(), groups)


def _predictions(run: RunRecord, split: Split) -> Predictions:
    found = read_predictions(RunDir(run.folder), split)
    if found is None or not found.predicted:
        on_validation = " --split validation" if split == "validation" else ""
        raise InputError(
            f"{run.folder} does not know what it predicted for each {split} image; "
            f"run `evensphere evaluate {run.folder}{on_validation}` once more."
        )
    return found


def _metric(wanted: str | None, sides: Sides, predictions: Sequence[tuple[Predictions, Predictions]]) -> str:
    """The metric to go by. Raises InputError if not all runs have it."""
    known = {
        str(run.folder): list(one.predicted)
        for runs, given in zip(sides.pairs, predictions, strict=True)
        for run, one in zip(runs, given, strict=True)
    }
    shared = [name for name in predictions[0][0].predicted if all(name in names for names in known.values())]
    preferred = [name for name in ("probe", "probe_paper", "knn") if name in shared] + shared
    if wanted is None and preferred:
        return preferred[0]
    if wanted not in shared:
        lacking = [folder for folder, names in known.items() if wanted is None or wanted not in names]
        what = f"--metric {wanted}" if wanted else "one metric"
        raise InputError(
            f"Not all runs were scored by {what} ({listing(lacking[:3])}); shared are: {listing(shared) or 'none'}."
        )
    return wanted


# --- differences ------------------------------------------------------------------------------------------------------


def _difference(scored: Sequence[_Scored], group: str, same_images: bool) -> Difference | None:
    pairs = [paired(one.first, one.second, one.labels, one.groups[group]) for one in scored]
    known = [pair._replace(shares=100 * pair.shares) for pair in pairs if pair is not None]
    if len(known) < len(scored):
        return None
    first, second = (
        float(np.mean([_accuracies(getattr(one, side), one, group).mean() for one in scored])) * 100
        for side in ("first", "second")
    )
    return Difference(
        first,
        second,
        paired_interval(known, same_images),
        sign_flip_p(_together(known, same_images)),
        _for_other_classes(scored, group),
    )


def _together(pairs: Sequence[Paired], same_images: bool) -> np.ndarray:
    """What each image contributes in the mean over seeds."""
    if same_images:
        mean: np.ndarray = np.mean([pair.shares for pair in pairs], axis=0)
        return mean
    return np.concatenate([pair.shares for pair in pairs]) / len(pairs)


def _accuracies(predicted: np.ndarray, scored: _Scored, group: str) -> np.ndarray:
    """Of each class of the group that has test images, in [0, 1]."""
    classes = [c for c in scored.groups[group] if (scored.labels == c).any()]
    right = predicted == scored.labels
    return np.array([right[scored.labels == c].mean() for c in classes])


def _for_other_classes(scored: Sequence[_Scored], group: str) -> Interval | None:
    tested = [[c for c in one.groups[group] if (one.labels == c).any()] for one in scored]
    if any(classes != tested[0] for classes in tested):
        return None
    table = [_accuracies(one.first, one, group) - _accuracies(one.second, one, group) for one in scored]
    return over_classes(100 * np.array(table))


def title_of(metric: str) -> str:
    """What the metric is called on pages."""
    return METRICS.get(metric, metric)
