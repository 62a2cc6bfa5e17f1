"""Run by the tests, not a test: trains the runs of a list one after the other with the same processes.

    python train_each.py JOBS.json DEVICES

JOBS.json: a list of {"out": folder, "arm": ..., "settings": [...], "resume": bool, "break": ""}. "break" names a
mistake to make, one that the comparison with one process must find.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from evensphere.engine.processes import together
from evensphere.ops import collective
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train_whole
from evensphere.rundir import ReadOnlyRun, RunDir

RIGHT = collective._Gather.backward


def without_others(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
    """As if what the other processes derived for this one's rows were lost."""
    return gradients[0].split(ctx.sizes)[collective.rank()], None


def without_factor(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
    """As if gradients were the whole, and not what is averaged over the processes."""
    mine, _ = RIGHT(ctx, *gradients)
    return mine / collective.world_size(), None


MISTAKES = {"": RIGHT, "gather": without_others, "factor": without_factor}


def main() -> None:
    jobs, devices = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    torch.set_num_threads(1)
    with together(devices) as processes:
        for job in jobs:
            collective._Gather.backward = staticmethod(MISTAKES[job["break"]])  # type: ignore[assignment]
            recipe = get_recipe("digits-lt", job["arm"]).set(job["settings"])
            run = (RunDir if processes.first else ReadOnlyRun)(job["out"])
            train_whole(recipe, run, job["resume"], None, Console(quiet=True), processes=processes)


if __name__ == "__main__":
    main()
