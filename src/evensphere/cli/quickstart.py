"""`evensphere quickstart`: the main job in small, on data that needs no download."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evensphere.cli.console import plain_console
from evensphere.cli.evaluate import group_table
from evensphere.cli.mapping import IMAGES, draw_after_training

if TYPE_CHECKING:
    from rich.console import Console

NAME = "quickstart"
ARMS = {"base": "SimCLR", "gh": "SimCLR + GH"}
COLUMNS = ("many", "medium", "few", "std", "average")


def run(
    out: Annotated[Path, typer.Option(help="Folder for the runs and the report.")] = Path("runs/quickstart"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 3,
    setting: Annotated[list[str] | None, typer.Option("--set", help="Change the recipe, such as epochs=20.")] = None,
) -> None:
    """Train SimCLR with and without GH on long-tailed digits, and look at what becomes of the rare ones."""
    from evensphere.report import groups_picture, write_report

    console = plain_console(width=110)
    console.print("Long-tailed handwritten digits: the rarest digit has 1/20 of the images of the most common one.")
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    folders = []
    for seed in range(seeds):
        for arm in ARMS:
            folder = out / f"{arm}-seed{seed}"
            results[arm].append(_train_and_evaluate(folder, arm, seed, setting or [], console))
            if seed == 0:  # whose map the page shows
                draw_after_training(folder, IMAGES)
            folders.append(folder)
    console.print(_table(results, seeds))
    console.print(_sentence(results, seeds))
    page, picture = write_report(folders, out / "report.html"), groups_picture(folders, out / "groups.png")
    console.print(f"Look at: {page} (and {picture})")
    console.print("Next, on your own images: evensphere train folder --data PATH --out runs/mine", soft_wrap=True)


def _train_and_evaluate(folder: Path, arm: str, seed: int, settings: list[str], console: Console) -> dict[str, Any]:
    """One run, or what is left to do of it."""
    from evensphere.recipes.recipe import get_recipe
    from evensphere.recipes.run import train
    from evensphere.recipes.scoring import evaluate

    # the seed also draws the subset: which digits are rare must not be the same in every run
    recipe = get_recipe("digits-lt", arm).set([f"seed={seed}", f"data.seed={seed}", *settings])
    train(recipe, folder, resume=True, console=console)
    return evaluate(folder, console=console)


def _table(results: dict[str, list[dict[str, Any]]], seeds: int) -> Any:
    """Both arms and the untrained encoder: mean and, from two seeds on, standard deviation."""
    rows = {"kNN, untrained encoder": _over_seeds([result["knn_untrained"] for result in results["base"]])}
    for metric, title in (("knn", "kNN"), ("probe", "linear probe")):
        for arm, name in ARMS.items():
            rows[f"{title}, {name}"] = _over_seeds([result[metric] for result in results[arm]])
    return group_table(f"Accuracy in % on balanced test digits, {seeds} seed(s)", rows)


def _over_seeds(scores: list[dict[str, Any]]) -> dict[str, Any]:
    summary: dict[str, Any] = {"test_images": scores[0]["test_images"]}
    for column in COLUMNS:
        values = [score[column] for score in scores]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        summary[column] = f"{mean(values):.2f}{spread}"
    return summary


def _sentence(results: dict[str, list[dict[str, Any]]], seeds: int) -> str:
    """What the table says, without claiming more than a few seeds can carry."""
    differences = {
        column: [
            harmonized["probe"][column] - plain["probe"][column]
            for harmonized, plain in zip(results["gh"], results["base"], strict=True)
        ]
        for column in ("few", "average")
    }
    parts = ", ".join(f"{column} {mean(values):+.2f} points" for column, values in differences.items())
    caution = "a check that the machinery works, not evidence for or against GH"
    return f"GH against SimCLR, linear probe, paired over {seeds} seed(s): {parts} ({caution})."
