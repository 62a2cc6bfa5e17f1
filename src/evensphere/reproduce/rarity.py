"""How much of what a sparse place holds is truly rare, measured on finished runs with labels in hand:
`python -m evensphere.reproduce.rarity RUNS... --data DIR` in a checkout.

Truly rare are the images of the few-classes of the long-tailed set; in a balanced run, the control, the same classes
are as common as any. Each run is a line of benchmarks/results/rarity.jsonl, written when it is done, and a run that has
its line is not looked at again. Scores that a list could be made by:

    rare      what `evensphere rare` gives: density, junk set apart, spread out
    density   local density of the encoder's features, sparsest first
    region    size of the GH region that an image stands in, smallest first, then by density (runs of the arm gh)

docs/results.md compares them with random (whose expectation is the share of rare images) and with SimCLR's own density
(the arms base).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, NamedTuple

import torch
import typer
from jaxtyping import Bool, Float, Int64
from scipy import stats
from torch import Tensor, nn

from evensphere.curation.look import Look, look_at
from evensphere.curation.rare import choose_rare
from evensphere.disk import atomic_write
from evensphere.engine.embed import embed
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer, anchor_scores
from evensphere.metrics.density import knn_density
from evensphere.metrics.groups import class_groups
from evensphere.recipes.building import revisit
from evensphere.recipes.frozen import by_encoder_of
from evensphere.recipes.images import splits_of
from evensphere.recipes.network import projector_of
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.reproduce.cells import arm_of
from evensphere.reproduce.page import Block, Heading, Paragraph, Rows
from evensphere.rundir import RunDir

FILE = "rarity.jsonl"
BUDGETS = (25, 50, 100, 200, 400)
SCORES = {"rare": "`evensphere rare`", "density": "density alone", "region": "size of the GH region"}
ARMS = {
    "base": "SimCLR",
    "two-stage": "SimCLR, GH's learning rate",
    "gh": "SimCLR + GH",
    "balanced": "SimCLR, balanced",
}

Line = Mapping[str, Any]


# --- one run ----------------------------------------------------------------------------------------------------------


def measure(run: RunDir, data: str | None) -> dict[str, Any]:
    """The line of a finished run. data: where its data set lies; None takes what its recipe says."""
    recipe = Recipe.from_json(run.read_recipe())
    recipe = recipe if data is None else with_data(recipe, data)
    splits = splits_of(recipe)
    labels = splits.pretrain.labels()
    if labels is None:
        raise InputError(f"{run.path} has no labels to tell which images are truly rare.")
    look = look_at(by_encoder_of(run, splits.pretrain, None))
    rare = _rare_classes(recipe)[labels][look.index]
    lists = {"rare": torch.tensor([find.number for find in choose_rare(look, max(BUDGETS)).rare])}
    density = torch.full((len(look.index),), torch.inf)
    density[look.leaders] = knn_density(look.features[look.leaders])
    lists["density"] = density.argsort(stable=True)
    if recipe.arm == "gh":
        lists["region"] = _by_region(run, look, density)
    return {
        "run": run.path.name,
        "arm": arm_of(run.path.resolve().name),
        "seed": recipe.seed,
        "recipe": recipe.name,
        "epochs": recipe.epochs,
        "images": len(look.index),
        "rare_share": round(float(rare.float().mean()), 6),
        "shared_neighbours_percent": None if look.reliability is None else round(look.reliability, 2),
        "found": {name: _found(order, rare, labels[look.index]) for name, order in lists.items()},
    }


def _found(order: Int64[Tensor, " m"], rare: Bool[Tensor, " n"], labels: Int64[Tensor, " n"]) -> dict[str, list[int]]:
    """{budget: [rare images among the first, rare classes among them]}"""
    found = {}
    for budget in BUDGETS:
        first = order[:budget]
        hits = first[rare[first]]
        found[str(budget)] = [len(hits), len(labels[hits].unique())]
    return found


def _imbalance(recipe: Recipe) -> float:
    counts = [count for count in splits_of(recipe).train_counts() or [] if count]
    return max(counts) / min(counts)


def _rare_classes(recipe: Recipe) -> Bool[Tensor, " c"]:
    """The few-classes of the recipe's long-tailed set; of a balanced run's, those of the same set with its own skew."""
    skewed = get_recipe(recipe.name).data.options | {"largest": None}
    tail = recipe.data.replace(**skewed) if _imbalance(recipe) == 1 else recipe.data
    splits = splits_of(replace(recipe, data=tail))
    counts = splits.train_counts()
    assert counts is not None
    return torch.tensor([group == "few" for group in class_groups(counts, splits.group_rule)])


def _by_region(run: RunDir, look: Look, density: Tensor) -> Int64[Tensor, " n"]:
    """Images of the smallest regions first, the sparsest of each before the others: pi of the anchor that an image's
    plain embedding is nearest to."""
    training, _ = revisit(run, run.checkpoint_steps()[-1])
    harmonizer, method = training.harmonizer, training.method
    assert isinstance(harmonizer, Harmonizer)
    network = nn.Sequential(method.encoder, projector_of(method))
    embedding = embed(look.source, network, training.views).features
    return smallest_first(harmonizer.prior[anchor_scores((embedding,), harmonizer.anchors)[0].argmax(1)], density)


def smallest_first(size: Float[Tensor, " n"], density: Float[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """The images by the size of their region, and within one size by density."""
    order = density.argsort(stable=True)
    return order[size[order].argsort(stable=True)]


def measure_all(runs: Sequence[Path], data: str | None, file: Path) -> None:
    """Add the lines of the finished runs that have none yet. A line is written as soon as it is known."""
    lines = list(read_lines(file))
    known = {(line["scale"], line["run"]) for line in lines}
    for path in runs:
        run, name = RunDir.existing(path), (path.resolve().parent.name, path.resolve().name)
        if name in known:
            typer.echo(f"{path}: known already")
        elif not run.encoder_file.exists():
            typer.echo(f"{path}: not finished")
        elif arm_of(name[1]) not in ARMS:
            typer.echo(f"{path}: not one of the arms {', '.join(ARMS)}")
        else:
            lines.append({"scale": name[0], **measure(run, data)})
            known.add(name)
            atomic_write(file, "".join(json.dumps(line) + "\n" for line in lines))
            typer.echo(f"{path}: done")


def read_lines(file: Path) -> list[Line]:
    """The lines of what was measured, none if nothing was."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# --- the section of docs/results.md -----------------------------------------------------------------------------------

_INTRODUCTION = (
    "`python -m evensphere.reproduce.rarity RUNS... --data DIR`: of the images at the head of a list, how many belong "
    "to the few-classes, against how many would by chance. Lift is precision over the share of such images; a random "
    "list has lift 1 on average. Means over seeds, 95 % intervals (Student's t). In the balanced arm the same classes "
    "are as common as the others: what a list finds there is how odd they look, not how rare they are."
)


def rarity_section(archive: Path) -> list[Block]:
    """The section; nothing if nothing was measured."""
    lines = read_lines(archive / FILE)
    if not lines:
        return []
    blocks: list[Block] = [Heading(1, "Finding the rare"), Paragraph(_INTRODUCTION)]
    for recipe, epochs in sorted({(line["recipe"], line["epochs"]) for line in lines}):
        mine = [line for line in lines if (line["recipe"], line["epochs"]) == (recipe, epochs)]
        blocks += [
            Heading(2, f"{recipe}, {epochs} epochs"),
            Paragraph(_verdict(mine)),
            Paragraph(_setting(mine)),
            _lifts(mine),
            _precisions(mine),
        ]
    return blocks


class Estimate(NamedTuple):
    """Mean over seeds and half the width of its 95 % interval, None for a single seed."""

    mean: float
    margin: float | None
    seeds: int

    @property
    def low(self) -> float:
        return self.mean - (float("inf") if self.margin is None else self.margin)

    @property
    def high(self) -> float:
        return self.mean + (float("inf") if self.margin is None else self.margin)


def estimate(values: Sequence[float]) -> Estimate:
    """Of at least one value."""
    if len(values) == 1:
        return Estimate(values[0], None, 1)
    error = stdev(values) / len(values) ** 0.5
    return Estimate(mean(values), float(stats.t.ppf(0.975, len(values) - 1)) * error, len(values))


def lift(line: Line, score: str, budget: int) -> float:
    """Rare images among the first of a list, over what is expected of a random one."""
    found: int = line["found"][score][str(budget)][0]
    images: int = min(budget, line["images"])
    return found / images / float(line["rare_share"])


def _rows_of(lines: Sequence[Line]) -> list[tuple[str, str, list[Line]]]:
    """(arm, score, its lines by seed) for all that was measured, in reading order."""
    found = []
    for arm in ARMS:
        for score in SCORES:
            mine = sorted((x for x in lines if x["arm"] == arm and score in x["found"]), key=lambda x: int(x["seed"]))
            if mine:
                found.append((arm, score, mine))
    return found


def _lifts(lines: Sequence[Line]) -> Rows:
    rows = [
        [
            f"{ARMS[arm]}: {SCORES[score]}",
            *(_spell(estimate([lift(x, score, budget) for x in mine])) for budget in BUDGETS),
            str(len(mine)),
        ]
        for arm, score, mine in _rows_of(lines)
    ]
    return Rows(["lift among the first", *map(str, BUDGETS), "seeds"], rows)


def _precisions(lines: Sequence[Line]) -> Rows:
    rows = []
    for arm, score, mine in _rows_of(lines):
        cells = []
        for budget in BUDGETS:
            images, classes = (mean(x["found"][score][str(budget)][i] for x in mine) for i in (0, 1))
            cells.append(f"{100 * images / min(budget, mine[0]['images']):.1f} % ({classes:.1f})")
        rows.append([f"{ARMS[arm]}: {SCORES[score]}", *cells, str(len(mine))])
    shares = {ARMS[x["arm"]] if x["arm"] == "balanced" else "long-tailed": 100 * x["rare_share"] for x in lines}
    for name, share in shares.items():
        rows.append([f"random, {name}", *[f"{share:.1f} %"] * len(BUDGETS), ""])
    return Rows(["precision (rare classes found)", *map(str, BUDGETS), "seeds"], rows)


def _spell(found: Estimate) -> str:
    interval = "" if found.margin is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.mean:.2f}{interval}"


def _setting(lines: Sequence[Line]) -> str:
    shared = estimate([x["shared_neighbours_percent"] for x in lines])
    return (
        f"{lines[0]['images']:,} images; {shared.mean:.0f} % of an image's nearest neighbours are the same in two "
        'random views of it (the command says "not reliable here" below 30 %).'
    )


def _verdict(lines: Sequence[Line], budget: int = 200) -> str:
    """What the numbers say at one budget, in sentences."""
    rows = {(arm, score): [lift(x, score, budget) for x in mine] for arm, score, mine in _rows_of(lines)}
    by_seed = {(arm, score): {x["seed"]: lift(x, score, budget) for x in mine} for arm, score, mine in _rows_of(lines)}
    sentences = [f"At a budget of {budget}:"]
    for (arm, score), values in rows.items():
        if arm == "balanced":
            continue
        found = estimate(values)
        told = "more" if found.low > 1 else "fewer" if found.high < 1 else "not surely more"
        sentences.append(f"{SCORES[score]} of {ARMS[arm]} finds {told} than random (lift {_spell(found)});")
    for score in SCORES:
        mine, theirs = rows.get(("base", score), []), rows.get(("balanced", score), [])
        if len(mine) > 1 and len(theirs) > 1:
            result = stats.ttest_ind(mine, theirs, equal_var=False)
            told = "more" if result.pvalue < 0.05 and mean(mine) > mean(theirs) else "not surely more"
            sentences.append(
                f"{SCORES[score]} of {ARMS['base']} finds {told} than it does on balanced data (lift {mean(mine):.2f} "
                f"against {mean(theirs):.2f}, p = {result.pvalue:.2f}, Welch);"
            )
        gh, plain = by_seed.get(("gh", score), {}), by_seed.get(("base", "density" if score == "region" else score), {})
        if both := sorted(gh.keys() & plain.keys()):
            gain = estimate([gh[seed] - plain[seed] for seed in both])
            told = "more" if gain.low > 0 else "fewer" if gain.high < 0 else "neither surely more nor fewer"
            sentences.append(
                f"{SCORES[score]} of {ARMS['gh']} finds {told} than SimCLR's own "
                f"{'density' if score == 'region' else 'list'} (difference in lift {_spell(gain)});"
            )
    return " ".join(sentences).rstrip(";") + "."


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="Run folders; finished ones count.")],
    data: Annotated[str | None, typer.Option(help="Where their data set lies.")] = None,
    file: Annotated[Path, typer.Option(help="The file to add to.")] = Path("benchmarks/results") / FILE,
) -> None:
    measure_all(runs, data, file)


if __name__ == "__main__":
    typer.run(run)
