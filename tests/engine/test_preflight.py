"""What is said before a run: it adds up, and it leaves no trace."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from tests.contract.sizes import SETTINGS
from torch import nn

from evensphere.engine import preflight as preflight_module
from evensphere.engine.preflight import Preflight, _SavedBytes, as_time, extrapolated, preflight
from evensphere.methods import METHODS
from evensphere.recipes import run as run_module
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

TINY = ["epochs=2", "backbone.width=4", "batch_size=64"]


def tiny(*settings: str) -> Recipe:
    return get_recipe("digits-lt").set([*TINY, *settings])


class Clock:
    """A clock on which reading an image takes 1 second, and a step with n images 10 + 3 n."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.probed = 0.0, []  # type: ignore[var-annotated]
        load, take = preflight_module._Probe.load, preflight_module._Probe.take

        def slow_load(probe: Any, count: int) -> Any:
            self.now += count
            return load(probe, count)

        def slow_take(probe: Any, count: int) -> None:
            self.now += 10 + 2 * count  # and a second an image for reading, in there
            self.probed.append(count)
            take(probe, count)

        monkeypatch.setattr(preflight_module._Probe, "load", slow_load)
        monkeypatch.setattr(preflight_module._Probe, "take", slow_take)

    def __call__(self) -> float:
        return self.now


def look_ahead(recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock | None = None) -> Preflight:
    """The preflight of a run that is then not trained."""
    found: list[Preflight | None] = []

    def fit(training: Any, run: Any, fabric: Any, console: Any, *others: Any) -> Any:
        found.append(preflight(training, fabric, clock) if clock else preflight(training, fabric))
        return training.method.encoder

    monkeypatch.setattr(run_module, "fit", fit)
    train(recipe, out)
    assert found[0] is not None
    return found[0]


@pytest.mark.parametrize(("budget", "probed"), [(1.0, [2, 2, 4]), (1e9, [2, 2, 4, 8, 16, 32, 64])])
def test_time_is_that_of_the_probe(
    budget: float, probed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    monkeypatch.setattr(preflight_module, "_BUDGET", budget)
    expected = look_ahead(tiny(), tmp_path / "run", monkeypatch, clock)
    assert clock.probed == probed
    assert (expected.images, expected.epochs, expected.probed) == (383, 2, probed[-1])
    assert expected.seconds_per_epoch == pytest.approx(383 * (10 / 64 + 3))


def test_memory_and_disk_grow_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def expected(*settings: str) -> Preflight:
        return look_ahead(tiny(*settings), tmp_path / ".".join(settings), monkeypatch)

    narrow, wide = expected("backbone.width=4"), expected("backbone.width=16")
    assert wide.memory > narrow.memory > 10**7
    assert 16 > wide.disk / narrow.disk > 2
    many = expected("backbone.width=4", "snapshot_every=1 epoch")
    assert many.disk > narrow.disk


def test_the_disk_it_promises_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promised = look_ahead(tiny("backbone.width=16"), tmp_path / "probe", monkeypatch).disk
    monkeypatch.undo()
    run = train(tiny("backbone.width=16", "checkpoint_every=1 step"), tmp_path / "run")
    checkpoints = [file.stat().st_size for file in run.glob("checkpoints/*.pt")]
    written = sum(checkpoints) + sum(file.stat().st_size for file in run.glob("*.safetensors"))
    assert written + max(checkpoints) < 1.1 * promised, "an old one goes when the new one is there"
    assert promised < 1.2 * written + 2 * max(checkpoints), "the best one may be one of the others"


_QUICK = ("simclr", "moco", "swav")  # a method without memory, one with a twin and a queue, one with local views


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in _QUICK else pytest.mark.slow) for name in METHODS]
)
def test_a_run_does_not_notice_the_probe(method: str, tmp_path: Path) -> None:
    text = io.StringIO()
    settings = [f"method={method}", "epochs=1", "backbone=resnet-small", "backbone.stages=2", *SETTINGS.get(method, [])]
    watched = RunDir(train(tiny(*settings), tmp_path / "watched", console=Console(file=text)))
    line = next(line for line in text.getvalue().splitlines() if line.startswith("383 images"))
    room = r"[\d.]+ [MG]B memory, [\d.]+ [kM]B disk\."
    assert re.fullmatch(rf"383 images, about [\d.,]+ (s|min) an epoch \(measured on \d+ images\), {room}", line)
    quiet = RunDir(train(tiny(*settings), tmp_path / "quiet"))
    assert watched.metrics_file.read_bytes() == quiet.metrics_file.read_bytes()
    assert watched.encoder_file.read_bytes() == quiet.encoder_file.read_bytes()


def test_a_quiet_run_is_not_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(*_: object) -> Iterator[None]:
        raise AssertionError("probed")

    monkeypatch.setattr(run_module, "preflight", probe)
    train(tiny("epochs=1"), tmp_path / "run")


def test_a_straight_line_within_what_is_possible() -> None:
    assert extrapolated({2: 14.0, 4: 18.0}, 64) == pytest.approx(10 + 2 * 64)
    assert extrapolated({2: 5.0, 4: 3.0}, 64) == 3, "noise: never less than what was seen"
    assert extrapolated({2: 1.0, 4: 3.0}, 64) == 48, "and never worse than in proportion"
    assert extrapolated({2: 1.0}, 64) == 32


def test_what_a_forward_pass_keeps() -> None:
    """Of two linear layers: their weights, their inputs, and what the ReLU between remembers (its output)."""
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5))
    sizes = []
    for count in (8, 16):
        saved = _SavedBytes()
        with saved:
            model(torch.zeros(count, 10, requires_grad=True))
        sizes.append(saved.total())
    assert sizes[1] - sizes[0] == 8 * (10 + 20) * 4


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (90, "90 s"),
        (150, "2.5 min"),
        (1500, "25 min"),
        (9000, "2.5 h"),
        (400_000, "4.6 days"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert as_time(seconds) == text
