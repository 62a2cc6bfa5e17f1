"""Small run folders with known contents, and what can be read back from a report of them."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from evensphere.report.arms import group_arms
from evensphere.report.live import LivePage, ReportServer
from evensphere.report.record import read_runs
from evensphere.report.sentences import summary

Json = dict[str, Any]
FEW = {("base", 0): 40.0, ("base", 1): 41.0, ("base", 2): 42.0, ("gh", 0): 43.0, ("gh", 1): 45.0, ("gh", 2): 44.0}
EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)><a href='https://x.invalid'>"


def scores(few: float, **changes: Any) -> Json:
    return {
        "many": 60.0, "medium": 50.0, "few": few, "average": 50.25, "std": 7.125, "std_sample": 8.5,
        "per_class": [60.0, 50.0, few], "test_images": {"many": 10, "medium": 10, "few": 10},
    } | changes  # fmt: skip


def results(few: float, classes: tuple[str, ...] = ("dog", "cat", "okapi"), **changes: Any) -> Json:
    return {
        "probe": scores(few), "knn": scores(few - 5, average=45.0), "knn_untrained": scores(9.0, average=12.0),
        "classes": list(classes), "train_counts": [100, 50, 4], "group_rule": "thirds", "settings": {},
    } | changes  # fmt: skip


def make_run(folder: Path, arm: str = "gh", seed: int = 0, eval_json: Json | None = None, **recipe: Any) -> Path:
    """A small finished run: 20 epochs of 10 steps, warm-up 10 epochs, ramp 5, region sizes twice."""
    folder.mkdir(parents=True)
    gh = arm == "gh"
    resolved = {
        "num_images": 1234, "steps_per_epoch": 10, "total_steps": 200,
        "warm_up_steps": 100 if gh else None, "ramp_steps": 50 if gh else None,
    }  # fmt: skip
    content: Json = {
        "name": "toys", "arm": arm, "seed": seed, "epochs": 20, "summary": "A small test.",
        "data": {"name": "digits", "options": {}}, "method": {"name": "simclr", "options": {}},
        "harmonizer": {"name": "gh" if gh else "none", "options": {"weight": 1.0} if gh else {}}, "resolved": resolved,
    }  # fmt: skip
    (folder / "recipe.json").write_text(json.dumps(content | recipe))
    (folder / "environment.json").write_text(json.dumps({"torch": "2.14"}))
    events: list[Json] = [
        {"event": "step", "step": i, "epoch": i // 10, "lr": 0.1, "loss": 5 - i / 100, "ssl": 5 - i / 100, "gh": 4.0,
         "gh_weight": float(gh and i >= 100)}
        for i in range(0, 200, 5)
    ]  # fmt: skip
    events += [{"event": "evaluation", "step": i, "epoch": i // 10, "knn": 30 + i / 10} for i in (100, 199)]
    if gh:
        events += [{"event": "population", "step": i, "epoch": i // 10, "prior": [0.5, 0.25, 0.25]} for i in (100, 150)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "encoder.safetensors").touch()
    if eval_json is not None:
        (folder / "eval.json").write_text(json.dumps(eval_json))
    return folder


def with_images(folder: Path, *locations: str) -> Path:
    """With RUN/images.json, which runs on files have."""
    (folder / "images.json").write_text(json.dumps({"images": locations}))
    return folder


def webp(number: int) -> str:
    """A small picture that no other number has, as base64."""
    picture = io.BytesIO()
    colour = (number * 37 % 256, number * 59 % 256, number * 101 % 256)
    Image.new("RGB", (16, 16), colour).save(picture, format="webp", lossless=True)
    return base64.b64encode(picture.getvalue()).decode()


def make_map(folder: Path, side: int = 10, labels: bool = True, regions: bool = True, **changes: Any) -> Json:
    """RUN/map.json of side x side images on a grid; every image has a picture of its own."""
    n = side * side
    content: Json = {
        "format": 1, "layout": "neighbour embedding", "images": n,
        "names": [f"photos/{i // side}/{i % side}.jpg" for i in range(n)],
        "x": [i % side * 9999 // (side - 1) for i in range(n)], "y": [i // side * 9999 // (side - 1) for i in range(n)],
        "tenth": [i * 10 // n for i in range(n)], "thumbnails": {str(i): webp(i) for i in range(n)},
    }  # fmt: skip
    if regions:
        region = [i % 3 for i in range(n)]
        content |= {"region": region, "region_images": [region.count(k) for k in range(3)] + [0]}
    if labels:
        content |= {"label": three_to_one(n), "classes": ["dog", "okapi"], "groups": ["many", "few"]}
    (folder / "map.json").write_text(json.dumps(content | changes))
    return content | changes


def three_to_one(n: int) -> list[int]:
    return [0] * (n - n // 4) + [1] * (n // 4)


def said(folders: list[Path] | Path) -> str:
    """All sentences of the summary, with ordinary spaces."""
    records = read_runs(folders)
    topics = summary(records, group_arms(records))
    return " ".join(sentence for sentences in topics.values() for sentence in sentences).replace("\xa0", " ")


class Page(HTMLParser):
    """What a browser would make of the page: its tags, the text of its scripts, the numbers in its tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data


NO_TIME = 1e-9  # seconds that a page is good for


@contextmanager
def serving(*runs: Path, every: float = NO_TIME) -> Iterator[ReportServer]:
    with ReportServer(LivePage(runs, every), port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
