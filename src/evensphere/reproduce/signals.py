"""Which label-free signal knows what checkpoint is good for the tail? What do regions and densities know of classes?

    python -m evensphere.reproduce.signals RUNS... [--data DIR] [--out benchmarks/results/signals.jsonl]

Measured with labels in hand, after training: each kept checkpoint of each finished run becomes a line with everything
that could be known without labels, and what a kNN and a linear probe score on *validation* images. A line that is there
is not measured again, so the same command goes on where it was stopped, or takes in runs that were added. What the
lines say is worked out by `choice`, which needs no run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float, Int64
from scipy.stats import spearmanr
from torch import Tensor

from evensphere.data.source import Source, Splits, take
from evensphere.diagnosis.look import Look, Revisited
from evensphere.disk import append, make_folder
from evensphere.engine.evaluate import extract
from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.harmonizer import anchor_scores
from evensphere.metrics.bank import Banks
from evensphere.metrics.classify import knn, logistic_probe
from evensphere.metrics.cluster import cosine_k_means
from evensphere.metrics.density import density_deciles, density_of, nearest_neighbours, neighbourhood_consistency
from evensphere.metrics.groups import GROUPS, class_groups
from evensphere.metrics.regions import gini, region_skew
from evensphere.metrics.signals import alignment, alpha_req, effective_rank, lidar, rank_me, uniformity
from evensphere.ops.draw import permutation
from evensphere.recipes.images import splits_of
from evensphere.recipes.recipe import Recipe
from evensphere.reproduce.cells import arm_of
from evensphere.reproduce.choice import Line, read_signals, run_of
from evensphere.rundir import RunDir

IMAGES = 5_000  # of the run's own that signals are computed of, at most
BANK = 5_000  # labelled images that kNN and probe are given
ANCHORS = 100  # of runs without a harmonizer
_UNIFORMITY_IMAGES = 4_000  # it takes n^2 exponentials


def measure(folders: Sequence[Path], out: Path, data: str | None = None) -> list[Line]:
    """The lines of all kept checkpoints of the runs in these folders; those not in `out` yet are measured and added.

    folders: of runs, or of folders of runs; unfinished runs are passed over. data: where their images lie now.
    """
    known = read_signals(out)
    done = {(run_of(line), line["step"]) for line in known}
    make_folder(out.parent)
    for run in _finished(folders):
        recipe = Recipe.from_json(run.read_recipe())
        kept = [step for step in run.checkpoint_steps() if step % recipe.resolved["steps_per_epoch"] == 0]
        mine = run_of(_named(run, recipe))
        left = [step for step in kept if (mine, step) not in done]
        if not left:
            continue
        revisited = Revisited(run, () if data is None else (data,), IMAGES)
        for step in left:
            line = _measure(revisited, step, last=step == kept[-1])
            known.append(line)
            append(out, json.dumps(line) + "\n")
            print(
                f"{run.path.name}, step {step}: {line['accuracies']['knn']['few']:.1f} % of the few by kNN", flush=True
            )
    return known


def _finished(folders: Sequence[Path]) -> Iterator[RunDir]:
    for folder in folders:
        inside = (
            [folder]
            if (folder / "recipe.json").exists()
            else sorted(path.parent for path in folder.glob("*/recipe.json"))
        )
        if not inside:
            raise InputError(f"{folder} is no run folder, and none is in it; give the --out of `evensphere reproduce`.")
        yield from (run for run in map(RunDir, inside) if run.encoder_file.exists())


def _named(run: RunDir, recipe: Recipe) -> Line:
    return {"run": run.path.name, "recipe": recipe.name, "epochs": recipe.size.epochs}


def _measure(revisited: Revisited, step: int, last: bool) -> Line:
    seen = revisited.at(step)
    recipe, counts = revisited.recipe, _tail_counts(revisited)
    line = {
        **_named(revisited.run, recipe),
        "arm": arm_of(revisited.run.path.name) or recipe.arm,
        "seed": recipe.seed,
        "step": step,
        "epoch": step // recipe.resolved["steps_per_epoch"],
        "images": len(seen.features),
        "last": last,
        "signals": {"step": float(step), "loss": _loss(revisited.run, step)}
        | _signals(seen, _anchors(revisited, seen)),
        "accuracies": _accuracies(revisited, counts),
    }
    return line | ({"classes": _knowledge(revisited, seen, counts)} if last else {})


def _loss(run: RunDir, step: int) -> float | None:
    """The method's own loss, mean over the epoch before."""
    first = step - run.read_recipe()["resolved"]["steps_per_epoch"]
    events = (event for event in run.read_metrics() if event["event"] == "step" and first <= event["step"] < step)
    losses = [event["ssl"] for event in events if "ssl" in event]
    return fmean(losses) if losses else None


def _anchors(revisited: Revisited, seen: Look) -> Float[Tensor, "k d"]:
    if revisited.harmonizer is not None:
        return revisited.harmonizer.anchors.cpu()
    assert seen.embeddings is not None, "signals are measured of methods with a projector"
    return geometric_uniform(ANCHORS, seen.embeddings.shape[2])


def _signals(seen: Look, anchors: Float[Tensor, "k d"]) -> dict[str, float]:
    """Everything a checkpoint says without labels."""
    assert seen.views is not None
    assert seen.embeddings is not None
    z1, z2 = seen.embeddings.unbind(1)
    neighbours = nearest_neighbours(seen.features)
    consistency = neighbourhood_consistency(*(nearest_neighbours(view) for view in seen.views.unbind(1)))
    sparsest = density_deciles(density_of(neighbours)) == 0
    nearest = anchor_scores((z1,), anchors)[0].argmax(1)
    return {
        "rank_me_features": rank_me(seen.features),
        "rank_me_embeddings": rank_me(z1),
        "rank_me_tail": rank_me(seen.features[sparsest]),
        "effective_rank_features": effective_rank(seen.features),
        "effective_rank_embeddings": effective_rank(z1),
        "lidar_features": lidar(seen.views),
        "lidar_embeddings": lidar(seen.embeddings),
        "alpha_req_features": alpha_req(seen.features),
        "alignment_embeddings": alignment(z1, z2),
        "uniformity_embeddings": uniformity(z1[:_UNIFORMITY_IMAGES]),
        "consistency": float(consistency.mean()),
        "consistency_tail": float(consistency[sparsest].mean()),
        "skew": float(gini(torch.bincount(nearest, minlength=len(anchors)))),
    }


# --- with labels in hand ----------------------------------------------------------------------------------------------


def _tail_counts(revisited: Revisited) -> list[int]:
    """Images of each class in the long-tailed set: for a balanced run, that of the base arm with the same seed, so that
    the few are the same classes in all."""
    counts = revisited.splits.train_counts()
    assert counts is not None, "signals are measured on labelled data"
    if max(counts) - min(counts) > 1:
        return counts
    base = RunDir(revisited.run.path.with_name(f"base-seed{revisited.recipe.seed}"))
    if not base.recipe_file.exists():
        return counts
    recipe = Recipe.from_json(base.read_recipe())
    where = {name: value for name, value in revisited.recipe.data.options.items() if name == "path"}
    return splits_of(replace(recipe, data=recipe.data.replace(**where))).train_counts() or counts


def _accuracies(revisited: Revisited, counts: list[int]) -> dict[str, dict[str, float | None]]:
    """kNN and the logistic probe on validation images, the probe at its default strength: nothing is chosen."""
    splits, views = revisited.splits, revisited.training.views
    bank, validation = _labelled(splits)
    train, test = (extract(revisited.encoder, one, views) for one in (bank, validation))
    banks = Banks(train, None, test, counts, splits.group_rule)
    return {
        name: {group: found[group] for group in (*GROUPS, "average")}
        for name, found in (("knn", knn(banks)), ("probe", logistic_probe(banks)))
    }


def _labelled(splits: Splits) -> tuple[Source, Source]:
    if splits.probe is None or splits.validation is None:
        raise InputError(f"{splits.pretrain.name} has no labelled probe and validation images to judge signals with.")
    chosen = permutation(0, "signals/bank", 0, len(splits.probe))[:BANK].sort().values
    return take(splits.probe, chosen), splits.validation


def _knowledge(revisited: Revisited, seen: Look, counts: list[int]) -> dict[str, Any]:
    """What regions and densities know of how common an image's class is: rank correlations over the images with the
    size of its class in the long-tailed set, and how skewed regions and classes are."""
    all_labels = revisited.splits.pretrain.labels()
    own_counts = revisited.splits.train_counts()
    assert all_labels is not None
    assert own_counts is not None
    labels = all_labels[revisited.index]
    sizes = torch.tensor(counts)[labels]
    assert seen.embeddings is not None
    anchors = _anchors(revisited, seen)
    regions = {
        "anchors": anchor_scores((seen.embeddings[:, 0],), anchors)[0].argmax(1),
        "k_means": cosine_k_means(seen.features, min(len(anchors), len(labels)), seed=0),
    }
    density = density_of(nearest_neighbours(seen.features))
    few = torch.tensor([group == "few" for group in class_groups(counts, revisited.splits.group_rule)])[labels]
    sparsest = density_deciles(density) == 0
    by_class = torch.zeros(len(counts)).index_add_(0, labels, density) / torch.bincount(labels, minlength=len(counts))
    present = by_class.isfinite()
    return {
        "class_skew": float(gini(torch.tensor(own_counts))),
        "density": _rank_correlation(density, sizes),
        "class_density": _rank_correlation(by_class[present], torch.tensor(counts)[present]),
        "few_in_sparsest": 100 * float(few[sparsest].float().mean()),
        "few_in_all": 100 * float(few.float().mean()),
        **{f"region_size_{name}": _rank_correlation(_size_of_own(region), sizes) for name, region in regions.items()},
        **{
            f"skew_{name}": region_skew(torch.bincount(region, minlength=len(anchors)))._asdict()
            for name, region in regions.items()
        },
    }


def _size_of_own(region: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    return torch.bincount(region)[region]


def _rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's; None where one of the two does not vary."""
    if len(first.unique()) < 2 or len(second.unique()) < 2:
        return None
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the signals of finished runs' checkpoints.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="run folders, or folders of run folders")
    parser.add_argument("--data", help="where the runs' data set lies now")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/signals.jsonl"))
    given = parser.parse_args()
    measure(given.runs, given.out, given.data)
