"""evensphere's step with GH, and the bare backbone on ready views: both are `evensphere bench`'s."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from setting import Setting, pixels

from evensphere.bench.names import EXACT
from evensphere.bench.subjects import Bench, bare_step, set_up
from evensphere.data.source import ArraySource, Splits
from evensphere.engine.processes import Processes
from evensphere.recipes.building import build_training
from evensphere.rundir import RunDir


def with_gh(setting: Setting) -> Callable[[], object]:
    bench = _bench(setting)
    return lambda: bench.step(EXACT)


def bare(setting: Setting) -> Callable[[], object]:
    bench = _bench(setting)
    step, batch = bench.next_batch()
    return bare_step(bench, bench.views(batch, bench.exact.progress(step)))


def _bench(setting: Setting) -> Bench:
    source = ArraySource("made-up images", pixels(setting.images))
    training = build_training(setting.recipe, Splits(source), source, RunDir(Path.cwd()))
    return set_up(setting.recipe, training, Processes().fabric(setting.recipe.precision))
