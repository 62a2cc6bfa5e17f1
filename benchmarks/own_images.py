"""How long to train a small collection, and what small batches need: the evidence for what `train folder` derives.

    python benchmarks/own_images.py length --data CIFAR --out benchmarks/results/choices/own-images.jsonl
    python benchmarks/own_images.py batch --data CIFAR --out benchmarks/results/choices/own-images.jsonl

On CIFAR-100-LT cut down to the size of a small collection.
length: SimCLR with the batch that `folder` derives, a cosine each over 40, 80 and 160 epochs.
batch: small batches, GH with K from the batch or from the data, with and without past scores in Sinkhorn; every arm of
a seed goes on from one first stage.

Scores are accuracies on validation images; the test images are not looked at. A small network, so that a run takes
minutes on one core: what it shows is the order of settings, not how good they are. Runs are kept in --runs, so an
interrupted call goes on; several calls share the work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

_NETWORK = (
    *("backbone=resnet-small", "backbone.width=16", "backbone.stages=3", "backbone.blocks=1"),
    *("backbone.stem=cifar-half", "views.size=32", "evaluate_every=25 epochs", "checkpoint_every=25 epochs"),
)
_LENGTHS = (40, 80, 160)
_SMALL = ("data.imbalance=100", "data.largest=135")  # 2,895 images
_BATCHES = {16: 30, 64: 40}  # how many epochs each
_FROM_DATA = 52  # anchors: at least 50 images to a region
_PAST = 4 * _FROM_DATA  # scores in Sinkhorn, with the batch: 4 to a region


class Run(NamedTuple):
    """One run of the comparison. branch: the run whose first stage it shares."""

    what: str
    name: str
    arm: str
    seed: int
    settings: tuple[str, ...]
    branch: str | None = None


def lengths(seed: int) -> Iterator[Run]:
    for epochs in _LENGTHS:
        yield Run("length", f"length-{epochs}-seed{seed}", "base", seed, (f"epochs={epochs}", *_SMALL))


def batches(seed: int) -> Iterator[Run]:
    for batch, epochs in _BATCHES.items():
        from_batch = batch // 4
        arms = {
            "K from the batch": (f"harmonizer.anchors={from_batch}",),
            "K from the data": (f"harmonizer.anchors={_FROM_DATA}",),
            "K from the data, past scores": (f"harmonizer.anchors={_FROM_DATA}", f"harmonizer.queue={_PAST - batch}"),
        }
        size = (f"epochs={epochs}", f"snapshot_every={epochs // 2} epochs", f"batch_size={batch}", *_SMALL)
        stem = f"batch-{batch}-{next(iter(arms))}-seed{seed}".replace(" ", "-")
        for title, settings in arms.items():
            name = f"batch-{batch}-{title}-seed{seed}".replace(" ", "-").replace(",", "")
            yield Run(f"batch {batch}: {title}", name, "gh", seed, (*size, *settings), None if name == stem else stem)
        yield Run(f"batch {batch}: no GH", f"batch-{batch}-none-seed{seed}", "two-stage", seed, size, stem)


def run(one: Run, data: str, folder: Path) -> bool:
    """Train and score a run, unless it is done, another process has it or its first stage is not there."""
    here, stem = RunDir(folder / one.name), None if one.branch is None else RunDir(folder / one.branch)
    if here.validation_file.exists() or (stem is not None and not stem.encoder_file.exists()):
        return False
    try:
        with FileLock(folder / f".{one.name}.lock").acquire(timeout=0):
            recipe = get_recipe("folder", one.arm).set(["data=cifar100", f"data.path={data}", "views=cifar"])
            recipe = recipe.set([*_NETWORK, f"seed={one.seed}", *one.settings])
            train(recipe, here.path, resume=True, branch=stem and stem.path)
            evaluate(here.path, split="validation", metrics=["knn", "probe"])
            return True
    except Timeout:
        return False


def record(one: Run, folder: Path) -> dict[str, object]:
    here = RunDir(folder / one.name)
    recipe, scores = here.read_recipe(), here.read_results("validation")
    resolved = recipe["resolved"]
    return {
        "what": one.what,
        "seed": one.seed,
        "epochs": recipe["epochs"],
        "batch": recipe["batch_size"],
        "images": resolved["num_images"],
        "steps": resolved["total_steps"],
        "anchors": resolved["anchors"],
        "queue": recipe["harmonizer"]["options"].get("queue", 0),
        **{metric: scores[metric]["average"] for metric in ("knn", "probe", "knn_untrained")},
        "few": scores["probe"]["few"],
        "few_knn": scores["knn"]["few"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("length", "batch"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/own-images"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    make = lengths if given.what == "length" else batches
    runs = [one for seed in range(given.seeds) for one in make(seed)]
    given.runs.mkdir(parents=True, exist_ok=True)
    while any(run(one, given.data, given.runs) for one in runs):
        pass
    done = [one for one in runs if RunDir(given.runs / one.name).validation_file.exists()]
    others = [line for line in _lines(given.out) if not str(line["what"]).startswith(given.what)]
    lines = [*others, *(record(one, given.runs) for one in done)]
    given.out.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
