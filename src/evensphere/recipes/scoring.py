"""From a run folder to its numbers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console

from evensphere.data.augment import Views
from evensphere.data.source import Source, Splits
from evensphere.disk import check_writable
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import Evaluation, evaluate_encoder
from evensphere.engine.predictions import Predictions, write_predictions
from evensphere.errors import InputError
from evensphere.metrics.groups import class_groups
from evensphere.recipes.images import how_read, splits_of
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, collection
from evensphere.recipes.trust import trusting
from evensphere.rundir import RunDir, Split, Which


def evaluate(
    run: Path | str,
    data: Path | str | Sequence[str] | None = None,
    metrics: Sequence[str] | None = None,
    console: Console | None = None,
    split: Split = "test",
    encoder: Which = "last",
    out: Path | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Metrics of a run's finished encoder, written to RUN/eval.json beside those already there, and returned.

    data: labelled images: a path of any kind (a folder, list, table, zip, tar ...), several paths that are one
        collection, or the name of a data set. None takes the labelled splits of the run's own.
    metrics: names (see METRICS); None takes the recipe's.
    split: "validation" scores the validation images instead, into RUN/validation.json, and leaves the test images
        alone: so that settings are chosen.
    encoder: "best" takes the one whose accuracy on validation images was highest while training, and writes
        RUN/eval-best.json. It was chosen by labels: those of the validation images.
    out: another file to write to, for a run that is read-only.
    trust: whether code of the user's own, which the run's recipe names, may run.
    Raises InputError before anything is computed if there is no such encoder, or the file cannot be written.
    """
    console = console or Console(quiet=True)
    folder = RunDir.existing(run)
    out = out or folder.results_file(split, encoder)
    check_writable(out)
    with trusting(trust):
        recipe = Recipe.from_json(folder.read_recipe())
    views: Views = build("views", recipe.views, seed=recipe.seed)
    splits = splits_to_score(recipe, data)
    if split == "validation":
        splits = _scored_on_validation(splits)
    untrained = build_encoder(recipe, splits.pretrain.channels)
    trained = copy.deepcopy(untrained)
    checksum = load_encoder(folder, trained, encoder)
    device = Fabric(accelerator="auto", devices=1).device
    for one in (untrained, trained):
        one.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with console.status("Evaluating the untrained encoder"):
        floor = evaluate_encoder(untrained, splits, views, ["knn"]).results["knn"]
    with console.status("Evaluating the trained encoder"):
        evaluation = evaluate_encoder(trained, splits, views, list(metrics or recipe.metrics))
    evaluation.results["knn_untrained"] = floor
    return record_results(folder, split, recipe, splits, data, evaluation, encoder, out, checksum)


def record_results(
    folder: RunDir,
    split: Split,
    recipe: Recipe,
    splits: Splits,
    data: Path | str | Sequence[str] | None,
    evaluation: Evaluation,
    encoder: Which = "last",
    out: Path | None = None,
    checksum: str | None = None,
) -> dict[str, Any]:
    """Write results and predictions into the run, beside those already there of the same images; returns them all.

    out: another file for the results; predictions are kept beside the run's own results of its last encoder only.
    checksum: of the encoder that was evaluated. A best one is known by it, since a run that still trains may find a
        better one, even while this one is evaluated.
    """
    own = folder.results_file(split, encoder)
    counts = splits.train_counts() or []
    results: dict[str, Any] = evaluation.results | {
        "classes": list(splits.pretrain.class_names or ()),
        "train_counts": counts,
        "groups": class_groups(counts, splits.group_rule),
        "group_rule": splits.group_rule,
        "settings": {
            "data": recipe.data.name if data is None else ", ".join(_paths(data)),
            **({} if encoder == "last" else {"encoder": checksum}),
        },
    }
    earlier = folder.read_results(split, encoder)
    if earlier.get("settings") == results["settings"]:  # other metrics of the same encoder on the same images
        results = earlier | results
    folder.write_json(out or own, results)
    if encoder == "last" and out in (None, own):
        _keep_predictions(folder, split, evaluation, splits.test)
    return results


def _keep_predictions(run: RunDir, split: Split, evaluation: Evaluation, source: Source | None) -> None:
    """Beside the results, image by image, so that runs can be compared on the same images."""
    assert source is not None, "there is a test split where there are results"
    images = [source.location(i) for i in evaluation.numbers.tolist()]
    write_predictions(run, split, Predictions(images, evaluation.labels, evaluation.predicted))


def splits_to_score(recipe: Recipe, data: Path | str | Sequence[str] | None) -> Splits:
    """The images a run is scored on: its own, or others (see `evaluate`)."""
    return splits_of(recipe) if data is None else _labelled(data, recipe)


def _labelled(data: Path | str | Sequence[str], recipe: Recipe) -> Splits:
    """The splits of images to evaluate on, read like the run's own. Raises InputError if they have no labels."""
    splits: Splits = build("data", collection(*_paths(data)), **how_read(recipe))
    if splits.probe is None or splits.test is None:
        raise InputError(
            f"{splits.pretrain.name} has no labels to evaluate with: put every image in a sub-folder named after its "
            "class (or give each a label in a list or table), with three images or more in at least two classes, or "
            "divide them into train and test."
        )
    return splits


def _paths(data: Path | str | Sequence[str]) -> list[str]:
    return [str(data)] if isinstance(data, str | Path) else [str(path) for path in data]


def _scored_on_validation(splits: Splits) -> Splits:
    """The validation images in the test images' place; nothing is left to choose a probe's own settings on."""
    if splits.validation is None:
        raise InputError(
            f"{splits.pretrain.name} has no validation images; "
            "hold some out, such as with --set data.validation_per_class=50 when training."
        )
    return splits._replace(validation=None, test=splits.validation)
