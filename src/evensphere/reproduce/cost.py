"""The table of what GH costs: the steps of `bench`, method by method, on the recipe of a scale.

Everything is timed by `evensphere.bench`, whose rows stay beside the table as cost/METHOD.jsonl. A method that was
timed in as many rounds is not timed again. DnC is missing: it is several runs, whose steps are those of its method.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from evensphere.bench import bench, names
from evensphere.disk import make_folder
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.report.wording import three_figures
from evensphere.reproduce.arms import BASELINES
from evensphere.reproduce.cells import Scale, check_seeds, scale_of
from evensphere.reproduce.page import Block, Heading, Paragraph, Rows
from evensphere.reproduce.pictures import medians_picture
from evensphere.reproduce.speed import Line, measured_on, read_lines

ROUNDS = 10  # for each of --seeds

METHODS = {"simclr": "SimCLR"} | {
    name: title for name, (title, (setting,)) in BASELINES.items() if setting.startswith("method=")
}

_STEPS = {"without GH": names.WITHOUT, "with GH": names.EXACT, "with GH, streaming pi": names.STREAMING}
_SHARE = names.GH_SHARE


def measure_cost(scale: str, seeds: int, data: str | None, folder: Path, console: Console) -> None:
    """Time what was not timed yet into FOLDER/cost. data: as for `bench`; None makes up pixels.

    Raises InputError for an unknown scale or no seeds.
    """
    found = scale_of(scale)
    check_seeds(seeds)
    make_folder(folder / "cost")
    for method in METHODS:
        file = folder / "cost" / f"{method}.jsonl"
        if not file.exists() or _rounds(read_lines(file)) < ROUNDS * seeds:
            console.print(f"Timing {METHODS[method]}, {ROUNDS * seeds} rounds")
            bench(_recipe(found, method), data, rounds=ROUNDS * seeds, out=file)


def _recipe(scale: Scale, method: str) -> Recipe:
    return get_recipe(scale.recipe, "gh").set([*scale.settings, f"method={method}"])


def cost_files(folder: Path) -> list[Path]:
    """What the page is made of."""
    return [file for method in METHODS if (file := folder / "cost" / f"{method}.jsonl").exists()]


def seeds_of_cost(folder: Path) -> int:
    """The --seeds that what was timed answers."""
    return min(_rounds(read_lines(file)) for file in cost_files(folder)) // ROUNDS


def cost_page(command: str, folder: Path, pictures: Path) -> list[Block]:
    """The page of what was timed, at least one method. pictures: where the PNG goes, as PICTURES-steps.png."""
    timed = {METHODS[file.stem]: {line["what"]: line for line in read_lines(file)} for file in cost_files(folder)}
    everything = [line for lines in timed.values() for line in lines.values()]
    picture = medians_picture(
        pictures.with_name(f"{pictures.name}-steps.png"),
        {
            "ms": [
                _dot(f"{name}, {what}", rows[step]) for name, rows in timed.items() for what, step in _STEPS.items()
            ],
            "GH, % of the step": [_dot(name, rows[_SHARE]) for name, rows in timed.items()],
        },
        "What a step takes: medians of the rounds and their 95 % intervals.",
    )
    return [
        Heading(1, command),
        Paragraph(
            "Milliseconds a training step takes, and the share of it that is GH's: medians of rounds in which all "
            "kinds of step are timed in turn, with 95 % intervals; the share is taken within a round. DnC is a "
            f"sequence of runs whose steps are those of its method. {measured_on(everything)}"
        ),
        picture,
        Heading(2, "A step"),
        Rows(
            ["method", *(f"{what}, ms" for what in _STEPS), "GH, % of the step", "rounds"],
            [
                [name, *(_spell(rows[what]) for what in (*_STEPS.values(), _SHARE)), str(rows[_SHARE]["n"])]
                for name, rows in timed.items()
            ],
        ),
    ]


def _rounds(lines: list[Line]) -> int:
    return max((line["n"] for line in lines), default=0)


def _dot(name: str, line: Line) -> tuple[str, float, float, float]:
    return name, line["median"], line["low"], line["high"]


def _spell(line: Line) -> str:
    return f"{three_figures(line['median'])} [{three_figures(line['low'])}, {three_figures(line['high'])}]"
