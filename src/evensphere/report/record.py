"""A run folder read into a RunRecord. What is unfinished, unlabelled or damaged is described, not refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from evensphere.errors import InputError
from evensphere.report.maps import ImageMap, read_map
from evensphere.report.wording import count, listing
from evensphere.rundir import RunDir
from evensphere.untrusted import RESULTS, read_json_lines, read_json_object

Json = dict[str, Any]

# Keys of eval.json and what the page calls them, in reading order.
METRICS = {
    "probe": "linear probe",
    "probe_paper": "linear probe, the paper's settings",
    "knn": "kNN",
    "knn_untrained": "kNN, untrained encoder",
    "probe_1_shot": "linear probe, 1 label a class",
    "probe_5_shot": "linear probe, 5 labels a class",
    "head_ce": "linear probe, long-tailed labels",
    "head_logit_adjusted": "long-tailed labels, logit adjustment",
    "head_balanced_softmax": "long-tailed labels, balanced softmax",
    "head_crt": "long-tailed labels, cRT",
    "head_tau_norm": "long-tailed labels, tau-norm",
    **{
        f"{start}_{method}": f"{words}, {title}"
        for start, words in (("finetune", "fine-tuned"), ("scratch", "from scratch"))
        for method, title in (
            ("ce", "cross-entropy"),
            ("logit_adjusted", "logit adjustment"),
            ("balanced_softmax", "balanced softmax"),
            ("crt", "cRT"),
            ("tau_norm", "tau-norm"),
        )
    },
    "clusters": "k-means, matched to classes",
    "retrieval": "retrieval, mean average precision",
}
_LARGEST = 2**53  # of whole numbers, which a float holds exactly
GROUPS = {"many": "many (common)", "medium": "medium", "few": "few (rare)", "average": "average"}


class Finding(NamedTuple):
    """What `evensphere diagnose` found: see diagnosis/finding.py."""

    name: str
    title: str
    level: str
    sentence: str
    advice: str


@dataclass(frozen=True)
class RunRecord:
    """What one run folder says."""

    folder: Path
    recipe: Json  # empty if unusable; otherwise it has at least a name, an arm, a seed and epochs
    environment: Json
    steps: list[Json]
    evaluations: list[Json]
    populations: list[Json]  # "prior": the region sizes, summing to 1; "effective": see effective_regions
    stopped: str  # why training ended before its last step; empty if it did not
    results: Json
    skipped: list[tuple[str, str]]
    finished: bool
    problems: list[str]  # one sentence for each defect of the files
    left_out: list[Json] = field(default_factory=list)  # steps that were not taken, each with its "reason"
    warnings: list[Json] = field(default_factory=list)  # "sentence", and what ended it: "until", None for nothing
    findings: list[Finding] = field(default_factory=list)  # of diagnosis.json, what cannot wait first
    image_map: ImageMap | None = None
    images: str = ""  # a digest of images.json, whatever the order there; empty where there is none to read
    label: str = ""  # what the run is called beside others

    @property
    def resolved(self) -> Json:
        return part(self.recipe, "resolved")

    @property
    def classes(self) -> list[tuple[str, int]]:
        """Name and number of training images of each class; empty without labels."""
        names, counts = self.results.get("classes"), self.results.get("train_counts")
        if not isinstance(names, list) or not isinstance(counts, list) or len(names) != len(counts):
            return []
        return [(str(name), int(number(images) or 0)) for name, images in zip(names, counts, strict=True)]

    def score(self, metric: str, key: str) -> float | None:
        """Percent (std: points) by `metric` (see METRICS), e.g. score("probe", "few"); None if there is none."""
        return number(part(self.results, metric).get(key))

    def interval(self, metric: str, key: str) -> tuple[float, float] | None:
        """Where 95 % of the scores for other test images of these classes would lie; None if that is not known."""
        found = part(part(self.results, metric), "intervals").get(key)
        low, high = map(number, found) if isinstance(found, list) and len(found) == 2 else (None, None)
        return None if low is None or high is None or low > high else (low, high)

    def class_score(self, metric: str, i: int) -> float | None:
        """Percent of class i; None if there is none."""
        per_class = part(self.results, metric).get("per_class")
        return number(per_class[i]) if isinstance(per_class, list) and i < len(per_class) else None

    def epoch_of(self, event: Json) -> float | None:
        """When an event happened, in epochs."""
        step, per_epoch = number(event.get("step")), number(self.resolved.get("steps_per_epoch"))
        return step / per_epoch if step is not None and per_epoch else number(event.get("epoch"))


def read_runs(runs: Sequence[Path] | Path) -> list[RunRecord]:
    """The records of the given folders, each folder once. Raises InputError if one holds no recipe.json."""
    folders = [runs] if isinstance(runs, Path) else list(runs)
    if not folders:
        raise InputError("No run folder was given; give at least one folder that `evensphere train` wrote.")
    different = {folder.resolve(): folder for folder in folders}
    labels = _told_apart(list(different))
    return [replace(read_run(folder), label=label) for folder, label in zip(different.values(), labels, strict=True)]


def _told_apart(folders: Sequence[Path]) -> list[str]:
    """The end of each path, as much of it as no other one ends in."""
    for length in range(1, max(len(folder.parts) for folder in folders)):
        labels = ["/".join(folder.parts[-length:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]


def read_run(folder: Path) -> RunRecord:
    """Read one run folder. Raises InputError if it holds no recipe.json."""
    run, problems = RunDir.existing(folder), list[str]()
    recipe = _read_object(run.recipe_file, problems)
    if recipe and (unusable := _unusable(recipe)):
        problems.append(f"recipe.json has no usable {listing(unusable)}.")
        recipe = {}
    events = _read_events(run.metrics_file, problems)
    results = _read_object(run.evaluation_file, problems)
    steps, stops = _of_kind("step", events), _of_kind("stopped", events)
    return RunRecord(
        folder=folder,
        label=folder.resolve().name,
        recipe=recipe,
        environment=_read_object(run.environment_file, problems),
        steps=steps,
        evaluations=_of_kind("evaluation", events),
        populations=[event | regions for event in _of_kind("population", events) if (regions := _regions(event))],
        stopped=str(stops[-1].get("reason") or "No reason was logged.") if stops else "",
        results=results,
        skipped=_read_skipped(run, problems),
        finished=run.encoder_file.is_file() or _reached_the_end(recipe, steps) or bool(results and not events),
        problems=problems,
        left_out=_of_kind("skipped", events),
        warnings=_warnings(events),
        findings=_findings(_read_object(run.diagnosis_file, problems)),
        image_map=read_map(run, problems),
        images=_read_images(run, problems),
    )


def _read_object(file: Path, problems: list[str]) -> Json:
    content = read_json_object(file, RESULTS, finite=False) if file.is_file() else {}
    if content is None:
        problems.append(f"{file.name} is damaged and was not used.")
    return content or {}


def _read_events(file: Path, problems: list[str]) -> list[Json]:
    """The lines of metrics.jsonl. A last line that was cut short is a run in progress, not damage."""
    if not file.is_file():
        return []
    events = list(read_json_lines(file))
    if damaged := events.count(None):
        problems.append(f"{count(damaged, 'line')} of metrics.jsonl could not be read.")
    return [event for event in events if event is not None]


def _read_skipped(run: RunDir, problems: list[str]) -> list[tuple[str, str]]:
    try:
        return run.read_skipped()
    except InputError:
        problems.append(f"{run.skipped_file.name} is damaged and was not used.")
        return []


def _read_images(run: RunDir, problems: list[str]) -> str:
    try:
        return _digest(run.images_file, run.images_file.stat().st_mtime_ns) if run.images_file.is_file() else ""
    except (InputError, OSError):
        problems.append(f"{run.images_file.name} is damaged and was not used.")
        return ""


@lru_cache(maxsize=1024)
def _digest(images_file: Path, changed: int) -> str:
    """Of the images that it names. Kept, since a page that is watched is made again and again."""
    images = sorted(RunDir(images_file.parent).read_images())
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:8]


def _of_kind(kind: str, events: Sequence[Json]) -> list[Json]:
    return [event for event in events if event.get("event") == kind]


def _warnings(events: Sequence[Json]) -> list[Json]:
    """Each warning with the event that ended it."""
    warnings: list[Json] = []
    for event in events:
        if event.get("event") == "warning":
            warnings.append(event | {"until": None})
        elif event.get("event") == "recovered":
            for warning in warnings:
                if warning.get("kind") == event.get("kind") and warning["until"] is None:
                    warning["until"] = event
    return warnings


LEVELS = ("alarm", "warning", "info", "ok")


def _findings(diagnosis: Json) -> list[Finding]:
    """What a diagnosis says, as far as it says it in words."""
    given = diagnosis.get("findings")
    found = []
    for one in given if isinstance(given, list) else []:
        words = [one.get(key, "") for key in Finding._fields] if isinstance(one, dict) else []
        texts = [word for word in words if isinstance(word, str)]
        if len(texts) == len(Finding._fields) and texts[2] in LEVELS:
            found.append(Finding(*texts))
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _unusable(recipe: Json) -> list[str]:
    """The keys no page can do without, where a recipe lacks them or has something of another kind."""
    kinds = {"name": str, "arm": str, "seed": int}
    wrong = [key for key, kind in kinds.items() if not isinstance(recipe.get(key), kind)]
    return wrong + (["epochs"] if number(recipe.get("epochs")) is None else [])


def _regions(event: Json) -> Json:
    """The region sizes of a population event; empty if they are unusable."""
    given = event.get("prior")
    sizes = [size for size in map(number, given) if size is not None and size >= 0] if isinstance(given, list) else []
    total = sum(sizes)
    if not total > 0 or len(sizes) != len(given or []):
        return {}
    prior = [size / total for size in sizes]
    return {"prior": prior, "effective": effective_regions(prior)}


def _reached_the_end(recipe: Json, steps: list[Json]) -> bool:
    total = number(part(recipe, "resolved").get("total_steps"))
    last = number(steps[-1].get("step")) if steps else None
    return total is not None and last is not None and last + 1 >= total


def number(value: object) -> float | None:
    """A finite number, or None for everything else that JSON can hold."""
    if isinstance(value, int) and abs(value) > _LARGEST:  # JSON has whole numbers of any length
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def part(content: Json, key: str) -> Json:
    """The object under a key; empty if there is none."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def effective_regions(prior: Sequence[float]) -> float:
    """exp(entropy) of region sizes that sum to 1: K when all are equal, 1 when one region holds everything."""
    return math.exp(-sum(share * math.log(share) for share in prior if share > 0))
