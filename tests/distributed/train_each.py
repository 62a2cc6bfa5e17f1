"""Trains the runs of a list one after the other, with the same processes. The tests run it:

python train_each.py JOBS.json DEVICES SHARDING
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from evensphere.data import loader
from evensphere.data.source import Pixels, Source, UnreadableImage
from evensphere.engine.processes import Processes, together
from evensphere.ops import collective
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train_whole
from evensphere.recipes.stages import train_stages
from evensphere.rundir import ReadOnlyRun, RunDir


class Job(NamedTuple):
    """One run. mistake: one to make that the comparison with one process must find (see MISTAKES). unreadable: images
    that cannot be read any more once training has begun."""

    out: str
    recipe: str
    settings: list[str]
    mistake: str = ""
    unreadable: Sequence[int] = ()


def train_each(jobs: list[Job], processes: Processes) -> None:
    for job in jobs:
        _make_mistake(job.mistake)
        _spoil(job.unreadable)
        recipe = replace(get_recipe(job.recipe).set(job.settings), monitor=())
        run = (RunDir if processes.first else ReadOnlyRun)(job.out)
        train: Any = train_whole if recipe.stages is None else train_stages
        train(recipe, run, True, None, Console(quiet=True), processes=processes)
    _make_mistake("")
    _spoil(())


# --- mistakes of our own ----------------------------------------------------------------------------------------------

_RIGHT = collective._Gather.backward


def _without_others(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
    """As if what the other processes derived for this one's rows were lost."""
    return gradients[0].split(ctx.sizes)[collective.rank()], None


def _without_factor(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
    """As if gradients were the whole, and not what is averaged over the processes."""
    mine, _ = _RIGHT(ctx, *gradients)
    return mine / collective.world_size(), None


MISTAKES = {"": _RIGHT, "gather": _without_others, "factor": _without_factor}


def _make_mistake(name: str) -> None:
    collective._Gather.backward = staticmethod(MISTAKES[name])  # type: ignore[method-assign]


# --- images that become unreadable ------------------------------------------------------------------------------------


class _Spoiled:
    """A source some of whose images cannot be read."""

    def __init__(self, source: Source, unreadable: Sequence[int]) -> None:
        self.source, self.unreadable = source, unreadable

    def read(self, i: int) -> Pixels:
        if i in self.unreadable:
            raise UnreadableImage("spoiled")
        return self.source.read(i)

    def location(self, i: int) -> str:
        return self.source.location(i)


_CROPS = loader.Crops


def _spoil(unreadable: Sequence[int]) -> None:
    def crops(source: Source, views: Any) -> loader.Crops:
        made = _CROPS(source, views)
        made.source = _Spoiled(source, unreadable)  # type: ignore[assignment]
        return made

    loader.Crops = crops if unreadable else _CROPS  # type: ignore[assignment, misc]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with together(int(sys.argv[2]), sharding=sys.argv[3]) as together_:  # type: ignore[arg-type]
        train_each([Job(*fields) for fields in json.loads(Path(sys.argv[1]).read_text())], together_)
