"""What a diagnosis is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "info", "warning", "alarm"]
LEVELS: tuple[Level, ...] = ("ok", "info", "warning", "alarm")  # from what can wait to what cannot

# the share of its neighbours that two views of an image must agree on before anything is said of single regions
RELIABLE = 0.30


@dataclass(frozen=True)
class Chart:
    """What a picture shows; drawn by `pictures`.

    kind: "bars" or "lines". x: a place for each value. series: the values, by name; None leaves a gap.
    intervals: (low, high) of each value of a series, where it has them.
    """

    kind: Literal["bars", "lines"]
    caption: str
    x: Sequence[float | str]
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[float | None]]
    intervals: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked into.

    name: for programs. title: for people. level: how much it matters. sentence: what was found, in one sentence.
    numbers: what it rests on, by name, as JSON. evidence: why it means what it is said to mean, and where that was
    measured. advice: what to do; empty where there is nothing to do. chart: the picture, if there is one.
    """

    name: str
    title: str
    level: Level
    sentence: str
    numbers: Mapping[str, Any]
    evidence: str
    advice: str = ""
    chart: Chart | None = None

    def to_json(self) -> dict[str, Any]:
        names = ("name", "title", "level", "sentence", "numbers", "evidence", "advice")
        return {name: finite(getattr(self, name)) for name in names}


@dataclass(frozen=True)
class Question:
    """What is looked into, before it is said what was found; its parts are those of the `Finding`."""

    name: str
    title: str
    numbers: Mapping[str, Any]
    evidence: str
    chart: Chart | None = None

    def answer(self, level: Level, sentence: str, advice: str = "") -> Finding:
        return Finding(self.name, self.title, level, sentence, self.numbers, self.evidence, advice, self.chart)


@dataclass(frozen=True)
class Diagnosis:
    """subject: what was looked at, as the user called it. what: in a few words. images: in all. looked_at: of these."""

    subject: str
    what: str
    images: int
    looked_at: int
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Level:
        return max((finding.level for finding in self.findings), key=LEVELS.index, default="ok")

    def by_urgency(self) -> list[Finding]:
        """What cannot wait first; otherwise in the order of looking."""
        return sorted(self.findings, key=lambda finding: -LEVELS.index(finding.level))

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in ("subject", "what", "images", "looked_at", "worst")}
        return fields | {"findings": [finding.to_json() for finding in self.findings]}


def finite(content: Any) -> Any:
    """As it can be written as JSON: what is not finite becomes None."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {str(name): finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    json.dumps(content)  # anything else must be writable as it is
    return content
