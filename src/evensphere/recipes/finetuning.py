"""A run's encoder fine-tuned on long-tailed labels, and the same network from scratch beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import Source, Splits, take
from evensphere.data.stream import Stream
from evensphere.disk import check_writable
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import Evaluation, build_banks, extract
from evensphere.engine.finetune import Tuning, finetune, steps
from evensphere.errors import InputError
from evensphere.metrics.bank import Banks
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import Part, build, check
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.scoring import record_results, splits_to_score
from evensphere.recipes.trust import trusting
from evensphere.rundir import RunDir

# Supervised views: a crop and a flip. What they have beyond that is for learning without labels.
_SUPERVISED = {"num_views": 1, "local_views": 0, "jitter_probability": 0.0, "gray": 0.0, "blur": 0.0, "solarize": 0.0}
_SCALE = (0.25, 1.0)


def finetune_run(
    run: Path | str,
    data: Path | str | Sequence[str] | None = None,
    tuning: Tuning | None = None,
    console: Console | None = None,
    trust: bool = False,
    scratch: bool = True,
) -> dict[str, Any]:
    """Fine-tune a run's finished encoder, and the same network from its first weights, on the labels of the images that
    it was pretrained on, and score both on the test images.

    The results join RUN/eval.json as "finetune_METHOD" and "scratch_METHOD" (see `engine.finetune.METHODS`) and are
    returned; so do the predictions. data: other labelled images, see `recipes.scoring.evaluate`; those that are for
    validation or test are not trained on. trust: whether code of the user's own, which the run's recipe names, may run.
    scratch: whether the network from its first weights is trained too; it is the same for all runs of a seed that have
    the same images, views and backbone.
    """
    console, tuning = console or Console(quiet=True), tuning or Tuning()
    folder = RunDir.existing(run)
    with trusting(trust):
        recipe = Recipe.from_json(folder.read_recipe())
    splits = splits_to_score(recipe, data)
    source = training_images(splits)
    labels = source.labels()
    if labels is None:
        raise InputError(f"{source.name} has no labels to fine-tune on; give --data with labelled images.")
    if splits.test is None:
        raise InputError(f"{source.name} has no test images to score on; give --data with labelled images.")
    check_writable(folder.evaluation_file)
    seen: Views = build("views", supervised(recipe.views), seed=tuning.seed)
    plain: Views = build("views", recipe.views, seed=recipe.seed)
    classes = len(splits.train_counts() or ())
    loader = Loader(source, tuning.batch_size, seen, tuning.seed, recipe.workers)
    device = Fabric(accelerator="auto", devices=1).device
    trained = build_encoder(recipe, source.channels)
    load_encoder(folder, trained)
    encoders = {"finetune": trained, **({"scratch": build_encoder(recipe, source.channels)} if scratch else {})}

    def banks_of(encoder: nn.Module) -> Banks:
        return build_banks(encoder, splits._replace(probe=source), plain)

    results: dict[str, Any] = {}
    with _bar(console) as bar:
        task = bar.add_task("Fine-tuning", total=len(encoders) * steps(loader, tuning))
        for name, encoder in encoders.items():
            bar.update(task, description="Fine-tuning the encoder" if name == "finetune" else "From scratch")
            found = finetune(
                encoder.to(device), loader, seen, labels, classes, banks_of, tuning, lambda: bar.update(task, advance=1)
            )
            results |= {f"{name}_{method}": scored for method, scored in found.items()}
    test = extract(trained, splits.test, plain)
    assert test.numbers is not None
    predicted = {name: torch.tensor(scored.pop("predicted")) for name, scored in results.items()}
    evaluation = Evaluation(results, test.numbers, test.labels, predicted)
    return record_results(folder, "test", recipe, splits, data, evaluation)


def training_images(splits: Splits) -> Source:
    """The images of pretraining, less those for validation and test: class folders were pretrained on as a whole."""
    source = splits.pretrain
    if isinstance(source, Stream):
        source.refuse("fine-tuning")
    held = {part.location(i) for part in (splits.validation, splits.test) if part is not None for i in range(len(part))}
    kept = [i for i in range(len(source)) if source.location(i) not in held]
    return source if len(kept) == len(source) else take(source, torch.tensor(kept, dtype=torch.int64))


def supervised(views: Part) -> Part:
    """The views of a recipe, with a crop and a flip alone; crops are not as small as without labels."""
    smallest = max(_SCALE[0], check("views", views).get("scale", _SCALE)[0])
    return views.replace(**_SUPERVISED, scale=[smallest, _SCALE[1]])


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
