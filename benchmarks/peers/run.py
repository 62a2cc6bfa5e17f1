"""The same SimCLR step by several libraries, in turn: `python benchmarks/peers/run.py --out FILE.jsonl`.

Every subject is a process of its own, its loader's workers included, with the same threads. All but the one whose turn
it is are stopped (SIGSTOP), so that no one's workers prepare their batches in another's time, and go on where they were
when it is their turn again. CPU only; POSIX only. See ../README.md for what is compared and why it is fair.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from setting import PRECISIONS, RECIPES, Setting
from subject import SUBJECTS

from evensphere.bench.rows import Row, summarise, write_rows
from evensphere.engine.processes import Processes
from evensphere.recipes.recipe import get_recipe, with_precision
from evensphere.recipes.run import environment

OURS, BARE, LIGHTLY, PLAIN = SUBJECTS
_LEAST_SECONDS = 1.5  # of one measurement

Key = tuple[str, str]  # subject, precision


class Process:
    """A subject in its own process group, stopped unless it is measured."""

    def __init__(self, name: str, setting: Setting) -> None:
        command = [sys.executable, str(Path(__file__).with_name("subject.py")), name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        first = self._ask(json.dumps(setting._asdict()))
        self.steps = max(1, round(_LEAST_SECONDS / first))
        self._signal(signal.SIGSTOP)

    def measure(self) -> float:
        """Seconds of one step."""
        self._signal(signal.SIGCONT)
        seconds = self._ask(str(self.steps))
        self._signal(signal.SIGSTOP)
        return seconds

    def end(self) -> None:
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.communicate()

    def _ask(self, line: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"The subject {self.process.args} failed; what it said is above.")
        return float(answer)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)


@contextmanager
def processes(keys: Sequence[Key], setting: Setting) -> Iterator[dict[Key, Process]]:
    started: dict[Key, Process] = {}
    try:
        for name, precision in keys:
            started[name, precision] = Process(name, setting._replace(precision=precision))
        yield started
    finally:
        for process in started.values():
            process.end()


def measure(keys: Sequence[Key], setting: Setting, rounds: int, console: Console) -> dict[Key, list[float]]:
    """Seconds of a step, a number for every round; A B C D A B C D ..."""
    measured: dict[Key, list[float]] = {key: [] for key in keys}
    with console.status("Starting"), processes(keys, setting) as started:
        for done in range(rounds):
            for key, process in started.items():
                measured[key].append(process.measure())
            console.print(f"Round {done + 1} of {rounds}")
    return measured


def rows(measured: Mapping[Key, Sequence[float]], batch: int) -> list[Row]:
    """A row a subject in ms, one in images/s, and how many times as fast ours is as each peer."""
    found = []
    for (name, precision), seconds in measured.items():
        bare = [1000 * value for value in measured[BARE, precision]]
        found.append(summarise(f"{name}, {precision}", [1000 * value for value in seconds], "ms", bare))
    for (name, precision), seconds in measured.items():
        found.append(summarise(f"{name}, {precision}, speed", [batch / value for value in seconds], "images/s"))
    precisions = list(dict.fromkeys(precision for _, precision in measured))
    best = precisions[-1]
    for peer in (LIGHTLY, PLAIN):
        pairs = [(precision, precision, "") for precision in precisions]
        if best != "fp32" in precisions:  # which is what the peers' examples have
            pairs.append((best, "fp32", ", each at its best"))
        for mine, theirs, words in pairs:
            ratios = [b / a for a, b in zip(measured[OURS, mine], measured[peer, theirs], strict=True)]
            found.append(summarise(f"against {peer}: {mine} and {theirs}{words}", ratios, "times as fast"))
    return found


def context(setting: Setting) -> dict[str, Any]:
    around = environment(Processes().fabric())
    return {
        **{name: value for name, value in setting._asdict().items() if name != "precision"},
        "made_up": True,
        "packages": around["packages"] | {"lightly": version("lightly")},
        **{name: around[name] for name in ("device", "threads", "python", "revision")},
    }


def table(found: Sequence[Row], setting: Setting) -> Table:
    result = Table(title=f"SimCLR step, {setting.network}, {setting.batch} images", title_justify="left")
    for column in ("", "median", "min", "max", "", "of bare"):
        result.add_column(column, justify="right" if column else "left")
    for row in found:
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        result.add_row(row.what, *(f"{value:.4g}" for value in (row.median, row.min, row.max)), row.unit, ratio)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--network", choices=RECIPES, default="resnet18")
    parser.add_argument("--batch", type=int, default=128, help="images a step, two views of each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of the peers' DataLoader")
    parser.add_argument("--channels-last", action="store_true", help="for the peers too, which their examples lack")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, help="[default: what the CPU multiplies natively]"
    )
    parser.add_argument("--out", type=Path, help="JSON lines")
    given = parser.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as evensphere's command line has it, here for everybody
    native = with_precision(get_recipe("cifar100-lt")).precision == "bf16-mixed"
    precisions = given.precisions or (["fp32", "bf16"] if native else ["fp32"])
    setting = Setting(given.network, "", given.batch, workers=given.workers, channels_last=given.channels_last)
    keys = [(name, precision) for precision in precisions for name in SUBJECTS]
    console = Console(stderr=True, highlight=False)
    found = rows(measure(keys, setting, given.rounds, console), given.batch)
    console.print(table(found, setting))
    if given.out:
        write_rows(given.out, found, context(setting))


if __name__ == "__main__":
    main()
