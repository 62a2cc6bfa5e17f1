"""The table `transfer`: what the frozen encoders are worth on other labelled images (paper, fine-grained sets).

A target is any labelled images that `evaluate --data` takes, most simply a folder with train and test (and val) inside,
or one of class folders, which is then divided the same way for every run. A probe is fitted on train, its
regularisation chosen on val, and test is scored once; kNN votes with train. RUN/transfer-TARGET.json holds the scores
and what was predicted for each test image, so that arms can be compared image by image without their weights.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from lightning_fabric import Fabric
from torch import nn

from evensphere.data.augment import Views
from evensphere.data.source import Source, Splits
from evensphere.disk import atomic_write
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import Evaluation, evaluate_encoder
from evensphere.errors import InputError
from evensphere.metrics.intervals import Interval, paired, paired_interval
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.scoring import splits_to_score
from evensphere.report.wording import capital
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Rows
from evensphere.reproduce.results import Score
from evensphere.reproduce.rows import PAIRED, Column, arm_rows, difference_rows, seeds_of, spell_range
from evensphere.rundir import RunDir
from evensphere.untrusted import RESULTS, read_json_object

_METRICS = ("probe", "knn")
_COLUMNS = ("average", "accuracy")
_UNTRAINED = "untrained"
_TITLES = {"probe": "probe", "knn": "kNN", "average": "mean over classes", "accuracy": "all images"}


class Target(NamedTuple):
    """Other labelled images. name: of lower-case letters, digits, - and _. path: see `recipes.scoring.evaluate`."""

    name: str
    path: str


def read_targets(given: Sequence[str]) -> list[Target]:
    """NAME=PATH -> targets. Raises InputError for anything else, a name given twice, or none at all."""
    if not given:
        raise InputError(
            "transfer needs labelled images of another kind; give them as --to NAME=PATH, such as --to birds=CUB_200, "
            "a folder with train and test inside or one of class folders."
        )
    targets = [Target(name, path) for name, _, path in (one.partition("=") for one in given)]
    for target, text in zip(targets, given, strict=True):
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", target.name) or not target.path:
            raise InputError(f"--to {text} was given; give NAME=PATH, the name of lower-case letters, digits, - and _.")
    if len({target.name for target in targets}) < len(targets):
        raise InputError("--to was given one name twice; give each target a name of its own.")
    return targets


# --- measuring --------------------------------------------------------------------------------------------------------


def check_target(target: Target, recipe: Recipe) -> None:
    """Raise InputError for a target that runs of that recipe could not be scored on, before any is trained."""
    splits_to_score(recipe, target.path)


def measure_transfer(run: RunDir, target: Target, with_untrained: bool) -> None:
    """Write the run's transfer-TARGET.json. with_untrained: also score the network as it was before training."""
    recipe = Recipe.from_json(run.read_recipe())
    splits = splits_to_score(recipe, target.path)
    untrained, trained = (build_encoder(recipe, splits.pretrain.channels) for _ in range(2))
    load_encoder(run, trained)
    evaluation = _score(trained, splits, recipe)
    assert splits.probe is not None, "there is one where a run can be scored"
    assert splits.test is not None
    content = {
        "target": target.name,
        "images": {
            "train": len(splits.probe),
            "validation": 0 if splits.validation is None else len(splits.validation),
            "test": len(evaluation.labels),
        },
        "classes": len(splits.train_counts() or ()),
        "test_images": _fingerprint(splits.test, evaluation.numbers.tolist()),
        "results": evaluation.results,
        "labels": evaluation.labels.tolist(),
        "predicted": {name: predicted.tolist() for name, predicted in evaluation.predicted.items()},
    }
    if with_untrained:
        content[_UNTRAINED] = _score(untrained, splits, recipe).results
    atomic_write(run.transfer_file(target.name), json.dumps(content) + "\n")


def _score(encoder: nn.Module, splits: Splits, recipe: Recipe) -> Evaluation:
    views: Views = build("views", recipe.views, seed=recipe.seed)
    encoder.to(Fabric(accelerator="auto", devices=1).device)
    return evaluate_encoder(encoder, splits, views, list(_METRICS))


def _fingerprint(test: Source, numbers: Sequence[int]) -> str:
    """Of which images were scored, in which order; not where they lie on somebody's machine."""
    return hashlib.sha256("\n".join(test.location(i) for i in numbers).encode()).hexdigest()


# --- numbers ----------------------------------------------------------------------------------------------------------

Content = dict[str, Any]  # of a transfer-TARGET.json


def transfer_scores(cells: Sequence[Cell], folder: Path) -> list[Score]:
    """Every number, as the metric "TARGET_probe" or "TARGET_knn"; of the untrained network as an arm of its own."""
    scores = []
    for cell in cells:
        run = RunDir(folder / cell.folder)
        recipe, device = run.read_recipe(), run.read_environment()["device"]
        for target, content in _contents(run).items():
            found = {cell.arm: content["results"]}
            if cell.arm == "two-stage" and _UNTRAINED in content:
                found[_UNTRAINED] = content[_UNTRAINED]
            for arm, results in found.items():
                for metric in _METRICS:
                    for column in _COLUMNS:
                        where = (recipe["name"], arm, recipe["seed"], f"{target}_{metric}", column)
                        scores.append(Score(*where, results[metric][column], None, device))
    return scores


def _contents(run: RunDir) -> dict[str, Content]:
    found = {}
    for target, file in run.transfer_files().items():
        content = read_json_object(file, RESULTS)
        if content is None:
            raise InputError(f"{file} cannot be read; delete it and measure the run again.")
        found[target] = content
    return found


# --- page -------------------------------------------------------------------------------------------------------------


def transfer_page(command: str, scores: Sequence[Score], cells: Sequence[Cell], folder: Path) -> list[Block]:
    contents = {(cell.arm, cell.recipe.seed): _contents(RunDir(folder / cell.folder)) for cell in cells}
    blocks: list[Block] = [
        Heading(1, command),
        Paragraph(
            f"{seeds_of(scores)} Frozen encoders, pretrained on the recipe's long-tailed images, on labelled images of "
            "another kind: a probe fitted on their training part, its regularisation chosen on their validation part, "
            "and kNN; accuracy in % on their test part, which is scored once. Mean over classes: every class counts "
            f"the same. {PAIRED} The row 'other images too' has intervals of the same difference for other seeds and "
            "other test images of these classes at once. Untrained: the same network before training."
        ),
    ]
    for target in sorted({target for found in contents.values() for target in found}):
        blocks += _target_blocks(target, scores, {cell: found for cell, found in contents.items() if target in found})
    return blocks


def _target_blocks(
    target: str, scores: Sequence[Score], contents: dict[tuple[str, int], dict[str, Content]]
) -> list[Block]:
    table = get_table("transfer")
    mine = {cell: found[target] for cell, found in contents.items()}
    _check_same_images(target, mine)
    one = next(iter(mine.values()))
    images = one["images"]
    chosen = f"{images['validation']:,} to choose by" if images["validation"] else "none to choose by"
    titles = {_UNTRAINED: "untrained"} | {arm: ARMS[arm].title for arm in table.arms}
    columns: dict[str, Column] = {
        f"{_TITLES[metric]}, {_TITLES[column]}": (f"{target}_{metric}", column)
        for metric in _METRICS
        for column in _COLUMNS
    }
    rows = []
    for pair in table.contrasts:
        differences = difference_rows(scores, [pair], titles, columns, unit="points")
        if differences.rows:
            rows += [*differences.rows, ["other images too", *_for_other_images(pair, mine, columns.values()), ""]]
    blocks: list[Block] = [
        Heading(2, capital(target)),
        Paragraph(
            f"{one['classes']:,} classes; {images['train']:,} images to fit on, {chosen}, {images['test']:,} to score."
        ),
        arm_rows(scores, titles, columns),
    ]
    return [*blocks, Rows(differences.header, rows)] if rows else blocks


def _check_same_images(target: str, contents: dict[tuple[str, int], Content]) -> None:
    """Raise InputError where runs were scored on other images under the same name."""
    (first, one), *others = contents.items()
    for cell, content in others:
        if (content["test_images"], content["labels"]) != (one["test_images"], one["labels"]):
            names = " and ".join(f"{arm}-seed{seed}" for arm, seed in (first, cell))
            raise InputError(
                f"{names} were scored on different images as {target}; delete the transfer-{target}.json of one and "
                "measure it again."
            )


def _for_other_images(
    pair: tuple[str, str], contents: dict[tuple[str, int], Content], columns: Iterable[Column]
) -> list[str]:
    """The intervals of means over classes; "-" in the other columns."""
    spelled = []
    for metric, column in columns:
        name = metric.rpartition("_")[2]
        found = difference_for_other_images(pair, contents, name) if column == "average" else None
        spelled.append("-" if found is None else spell_range(*found))
    return spelled


def difference_for_other_images(
    pair: tuple[str, str], contents: dict[tuple[str, int], Content], metric: str
) -> Interval | None:
    """First less second in points of mean accuracy over classes, with an interval for other seeds and other images.

    contents: of one target's files, by arm and seed. metric: "probe" or "knn". None without a seed that both have.
    """
    first, second = ({seed: one for (arm, seed), one in contents.items() if arm == which} for which in pair)
    pairs = []
    for seed in sorted(first.keys() & second.keys()):
        mine, theirs = (np.array(one[seed]["predicted"][metric], dtype=np.int64) for one in (first, second))
        labels = np.array(first[seed]["labels"], dtype=np.int64)
        found = paired(mine, theirs, labels, range(first[seed]["classes"]))
        assert found is not None, "a run is scored on one image at least"
        pairs.append(found._replace(shares=100 * found.shares))
    return paired_interval(pairs, same_images=True) if pairs else None
