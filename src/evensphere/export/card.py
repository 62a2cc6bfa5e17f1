"""A model card, filled from what the run says of itself. What the run does not say is said to be unknown.

Names of classes and data sets come from whoever made the data; on the card they are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evensphere.export.checks import Exported
from evensphere.export.subject import Subject
from evensphere.metrics import DESCRIPTIONS
from evensphere.recipes.part import Part
from evensphere.report.record import METRICS
from evensphere.rundir import RunDir
from evensphere.untrusted import shown

_GROUPS = ("many", "medium", "few", "average")


def model_card(subject: Subject, exported: Exported, library: str) -> str:
    """Markdown with a header that hubs read. library: that loads the folder."""
    recipe = subject.recipe
    sections = {
        "How to use it": _usage(subject, exported),
        "Data": _data(subject),
        "Recipe": _recipe(subject),
        "Results": _results(subject),
        "Limits": [f"* {sentence}" for sentence in _limits(subject)],
    }
    head = [
        "---",
        f"library_name: {library}",
        "pipeline_tag: image-feature-extraction",
        "tags:",
        *(f"- {tag}" for tag in ("self-supervised-learning", "long-tailed", "evensphere")),
        "---",
        "",
        f"# {as_text(recipe.backbone.name)}, trained without labels ({as_text(recipe.method.name)}, {recipe.arm})",
        "",
        "An encoder of images, trained by evensphere on unlabelled images. "
        f"It gives {subject.features.shape[1]} features for each image. "
        "The person who publishes it has to add a licence; none was chosen by the program.",
    ]
    body = [line for title, lines in sections.items() for line in ("", f"## {title}", "", *lines)]
    return "\n".join([*head, *body]) + "\n"


def _usage(subject: Subject, exported: Exported) -> list[str]:
    made = subject.metadata
    code = exported.code.replace(repr(str(exported.files[0].parent)), "'path/to/this/folder'")
    return [
        "```python",
        *code.splitlines(),
        "```",
        "",
        f"Preprocessing: {made['preprocessing']}; input_size {made['input_size']}, mean {made['mean']}, std "
        f"{made['std']}.",
        "",
        f"Checked when it was written: {as_text(str(exported))}",
    ]


def _data(subject: Subject) -> list[str]:
    resolved, run = subject.recipe.resolved, subject.run
    data = subject.recipe.data
    options = {key: value for key, value in data.options.items() if key != "path"}
    about = f" ({_spelled(options)})" if options else ""
    lines = [
        f"* Source: {as_text(data.name)}{about}",
        f"* Images: {_count(resolved.get('num_images'))} of {subject.channels} channel(s), used without labels",
        f"* Unreadable images left out: {len(run.read_skipped()):,}",
    ]
    results = run.read_results("test", subject.which)
    counts = [count for count in results.get("train_counts") or [] if isinstance(count, int) and count > 0]
    if counts:
        lines.append(
            f"* Classes, known to evaluation only: {len(counts):,}; {max(counts):,} images of the most common, "
            f"{min(counts):,} of the rarest"
        )
    return lines


def _recipe(subject: Subject) -> list[str]:
    recipe, resolved = subject.recipe, subject.recipe.resolved
    parts = {"backbone": recipe.backbone, "method": recipe.method, "GH": recipe.harmonizer, "views": recipe.views}
    parts |= {"optimizer": recipe.optimizer, "learning rate": recipe.schedule}
    lines = [f"* {title}: {_part(part)}" for title, part in parts.items()]
    lines += [
        f"* {_count(recipe.epochs)} epochs in batches of {recipe.batch_size}, "
        f"{_count(resolved.get('total_steps'))} steps, seed {recipe.seed}, precision {recipe.precision}",
        f"* Encoder: {'the last' if subject.which == 'last' else 'the best on validation images while training'}",
    ]
    if isinstance(resolved.get("anchors"), int):
        lines.append(f"* GH's regions: {resolved['anchors']}")
    begun = resolved.get("init")
    if isinstance(begun, dict):
        lines.append(f"* It began with other weights (SHA-256 {as_text(str(begun.get('sha256')))}), not random ones")
    environment = subject.run.read_environment()
    seconds = subject.run.train_seconds()
    time = "" if seconds is None else f", {seconds / 3600:.2f} hours"
    if environment:
        lines.append(f"* Trained on {as_text(str(environment.get('device')))}{time}")
    return [*lines, "", "Every option is in evensphere.json."]


def _results(subject: Subject) -> list[str]:
    results = subject.run.read_results("test", subject.which)
    scored = [name for name in METRICS if isinstance(results.get(name), dict) and name not in DESCRIPTIONS]
    if not scored:
        return ["This encoder has not been evaluated."]
    settings = results.get("settings")
    data = str(settings.get("data")) if isinstance(settings, dict) else "unknown origin"
    images = ", ".join(as_text(Path(one).name) for one in data.split(", "))
    rows = [" | ".join([METRICS[name], *(_score(results[name], group) for group in _GROUPS)]) for name in scored]
    return [
        f"Scores in % on test images of {images}, by how common classes are in training; in brackets 95 % intervals "
        "for other test images of these classes, where they are known.",
        "",
        f"| | {' | '.join(_GROUPS)} |",
        f"|---|{'---:|' * len(_GROUPS)}",
        *(f"| {row} |" for row in rows),
    ]


def _limits(subject: Subject) -> Iterator[str]:
    run = subject.run
    results = run.read_results("test", subject.which)
    evaluated = any(isinstance(results.get(name), dict) for name in METRICS)
    yield "One run with one seed: other seeds give other numbers, and how different they are is not known from it."
    if evaluated:
        yield "The numbers are of the test images named above; on other images it has not been tried."
    else:
        yield "How good its features are for anything has not been measured."
    if results.get("unjudged") or any(_unjudged(results.get(name)) for name in METRICS):
        yield "Some classes cannot be judged, for want of test images."
    yield f"It was trained on views of {subject.views.size} pixels a side."
    yield "Without labels nothing kept it from learning what images share by accident (places, cameras, marks)."
    images = subject.recipe.resolved.get("num_images")
    if isinstance(images, int) and images < 10_000:
        yield f"It was trained on only {images:,} images."
    if subject.images.endswith("gone)"):
        yield "When this folder was written the training images were gone, and it was checked with noise."
    yield from _warnings(run)


def _warnings(run: RunDir) -> Iterator[str]:
    """What the run's own watchdog has said, each sentence once."""
    said = (event.get("sentence") for event in run.read_metrics() if event.get("event") == "warning")
    for sentence in dict.fromkeys(one for one in said if isinstance(one, str)):
        yield f"While training: {as_text(sentence)}"


# --- in words ---------------------------------------------------------------------------------------------------------


def as_text(text: str) -> str:
    """A text that Markdown and HTML show as it is, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&])", r"\\\1", shown(text)).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _part(part: Part) -> str:
    options = f" ({_spelled(part.options)})" if part.options else ""
    return as_text(part.name) + options


def _spelled(options: dict[str, Any]) -> str:
    return as_text(", ".join(f"{key} {json.dumps(value)}" for key, value in options.items()))


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else "an unknown number"


def _score(scores: dict[str, Any], group: str) -> str:
    value = scores.get(group)
    if not isinstance(value, int | float):
        return "-"
    intervals = scores.get("intervals")
    interval = intervals.get(group) if isinstance(intervals, dict) else None
    known = isinstance(interval, list) and len(interval) == 2 and all(isinstance(x, int | float) for x in interval)
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]" if known else f"{value:.1f}"  # type: ignore[index]


def _unjudged(scores: object) -> bool:
    return isinstance(scores, dict) and bool(scores.get("unjudged"))
