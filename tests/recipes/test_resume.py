"""Killed with -9 again and again and resumed, a run equals one that was never stopped, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from evensphere.engine import train as engine
from evensphere.ops.schedule import Progress
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train as train_recipe
from evensphere.recipes.scoring import evaluate
from evensphere.report import write_report
from evensphere.rundir import RunDir

# 61 images in batches of 16: three full ones and a partial one of 13, so 4 steps an epoch; GH from epoch 3 of 6, with a
# ramp of 2 epochs; a checkpoint every 3 steps, so that most lie inside an epoch
SETTINGS = [
    "epochs=6", "batch_size=16", "workers=2", "checkpoint_every=3 steps", "evaluate_every=2 epochs",
    "precision=32-true", "views=cifar", "views.size=16", "backbone=resnet-small", "backbone.width=8",
    "backbone.stages=2", "schedule.learning_rate=0.05", "schedule.middle=0.03", "harmonizer.anchors=6",
    "harmonizer.ramp=2 epochs", "harmonizer.update_every=2 epochs",
]  # fmt: skip

# One process imports everything once; each job is a fork of it that trains and, maybe, dies without a word: before the
# optimiser step `kill_step`, half-way through writing `kill_file`, or after `kill_after` seconds.
SCRIPT = """
import json, os, sys, time
import torch
torch.set_num_threads(1)
from evensphere import rundir
from evensphere.engine import checkpoint, train as engine
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.recipes.run import train

def go(images, out, kill_step, kill_file, settings):
    def take_step(training, step_module, batch, progress, fabric, original=engine._take_step):
        if progress.step == kill_step:
            os.kill(os.getpid(), 9)
        return original(training, step_module, batch, progress, fabric)

    def atomic_write(path, data, original=rundir.atomic_write):
        if path.name == kill_file:
            path.with_name(path.name + ".part").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), 9)
        original(path, data)

    engine._take_step, checkpoint.atomic_write = take_step, atomic_write
    train(with_data(get_recipe("folder"), images).set(settings), out, resume=True)

for job in json.loads(sys.argv[1]):
    *job, kill_after, settings = job
    child = os.fork()
    if child == 0:
        go(*job, settings)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, 9)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Death = tuple[int | None, str, float | None]
NO_DEATH: Death = (None, "", None)


def before_step(step: int) -> Death:
    return step, "", None


def inside(file: str) -> Death:
    return None, file, None


def after(seconds: float) -> Death:
    return None, "", seconds


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 pictures of two classes in files of different sizes."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits(n_class=2)
    for i in range(61):
        side = 16 + i % 7
        picture = Image.fromarray((digits.images[i] * 15).astype("uint8")).resize((side, side + i % 3))
        target = folder / str(digits.target[i]) / f"{i}.png"
        target.parent.mkdir(exist_ok=True)
        picture.save(target)
    return folder


def train(images: Path, out: Path, deaths: list[Death]) -> list[int]:
    """Start the run, and resume it, once for every death; the exit codes."""
    jobs = [(str(images), str(out), *death, SETTINGS) for death in deaths]
    command = [sys.executable, "-c", SCRIPT, json.dumps(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(code) for code in done.stdout.split()]


class Unbroken(NamedTuple):
    """A run that was never stopped. seconds: what it took, with the start of Python."""

    run: RunDir
    seconds: float


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    run, started = RunDir(tmp_path_factory.mktemp("unbroken") / "run"), time.perf_counter()
    assert train(images, run.path, [NO_DEATH]) == [0]
    return Unbroken(run, time.perf_counter() - started)


def flatten(state: object, path: str = "") -> dict[str, object]:
    """Every leaf of a checkpoint, by where it is."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in flatten(value, f"{path}/{key}").items()}
    if isinstance(state, list):
        return {k: v for i, value in enumerate(state) for k, v in flatten(value, f"{path}/{i}").items()}
    return {path: state}


def same(value: object, other: object) -> bool:
    if isinstance(value, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(value, other)
    return value == other


def test_a_run_killed_again_and_again_equals_one_never_stopped(
    images: Path, unbroken: Unbroken, tmp_path: Path
) -> None:
    whole, killed = unbroken.run, RunDir(tmp_path / "killed")
    resolved = whole.read_recipe()["resolved"]
    assert (resolved["num_images"], resolved["steps_per_epoch"], resolved["warm_up_steps"]) == (61, 4, 12)

    deaths: list[Death] = [
        before_step(1),  # before the first checkpoint: start over
        before_step(5),  # in the middle of an epoch
        inside("step-000000009.pt"),  # half-way through writing a checkpoint
        before_step(11),  # before the last step of the warm-up, in the partial batch
        before_step(12),  # at the stage change
        before_step(14),  # inside the ramp
        inside("step-000000024.pt"),  # the last checkpoint of all
    ]
    assert train(images, killed.path, [*deaths, NO_DEATH]) == [-9] * len(deaths) + [0]

    assert killed.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert killed.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    assert not list(killed.path.rglob("*.part")), "what was half written is gone"
    assert killed.checkpoint_steps() == whole.checkpoint_steps()
    states = [flatten(torch.load(run.checkpoint_file(24), weights_only=True)) for run in (whole, killed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert same(value, states[1][name]), name
    assert any("population/values" in name for name in states[0]), "the memory is in the checkpoint"
    steps = [event["step"] for event in killed.read_metrics() if event["event"] == "step"]
    assert steps == list(range(24)), "no line is missing or doubled"


def test_a_finished_run_is_left_as_it_is(images: Path, unbroken: Unbroken) -> None:
    out = unbroken.run

    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in out.path.rglob("*") if file.name != ".lock"}

    before = files()
    assert train(images, out.path, [NO_DEATH]) == [0]
    assert files() == before
    assert out.read_recipe()["resolved"]["anchors"] == 6


class Stopped(Exception):
    """Instead of a power cut."""


def stop_before(step: int, recipe: Recipe, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train up to a step and no further."""
    take_step = engine._take_step

    def dying(training: Any, step_module: Any, batch: Any, progress: Progress, fabric: Any) -> dict[str, Any]:
        if progress.step == step:
            raise Stopped
        return take_step(training, step_module, batch, progress, fabric)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_take_step", dying)
        with pytest.raises(Stopped):
            train_recipe(recipe, out)


def stopped_and_resumed(settings: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Two epochs of six steps, stopped inside the second and resumed, against the same run unbroken: the same bytes.

    Returns the last checkpoint, flat.
    """
    small = ["epochs=2", "backbone.width=4", "batch_size=64", "checkpoint_every=4 steps", "evaluate_every=2 epochs"]
    recipe = get_recipe("digits-lt").set([*small, *settings])
    unbroken, stopped = RunDir(path / "unbroken"), RunDir(path / "stopped")
    train_recipe(recipe, unbroken.path)
    stop_before(9, recipe, stopped.path, monkeypatch)
    assert stopped.checkpoint_steps()[-1] == 8, "two steps into an epoch of six"
    train_recipe(recipe, stopped.path, resume=True)
    assert stopped.metrics_file.read_bytes() == unbroken.metrics_file.read_bytes()
    assert stopped.encoder_file.read_bytes() == unbroken.encoder_file.read_bytes()
    states = [flatten(torch.load(run.checkpoint_file(12), weights_only=True)) for run in (unbroken, stopped)]
    assert states[0].keys() == states[1].keys()
    assert all(same(value, states[1][name]) for name, value in states[0].items())
    return states[0]


@pytest.mark.parametrize("method", ["sdclr", "bcl"])
def test_what_a_method_remembers_survives_a_stop(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second epoch's mask or weights were made at the end of the first."""
    state = stopped_and_resumed([f"method={method}"], tmp_path, monkeypatch)
    assert any(f"_extra_state/{'masks' if method == 'sdclr' else 'weights'}" in name for name in state)


@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_what_an_optimiser_remembers_survives_a_stop(
    optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"optimizer={optimizer}", "schedule.learning_rate=auto", "schedule.middle=auto"]
    state = stopped_and_resumed(settings, tmp_path, monkeypatch)
    remembered = {"lars": "momentum_buffer", "adamw": "exp_avg_sq"}[optimizer]
    assert any(name.startswith("/optimizer/state") and name.endswith(remembered) for name in state)


def test_a_run_in_micro_batches_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of a part are drawn for each step."""
    stopped_and_resumed(["micro_batches=4"], tmp_path, monkeypatch)


def test_rwsam_survives_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images' weights are made anew from the first stage's encoder."""
    first = get_recipe("digits-lt", "base").set(["epochs=1", "backbone.width=4", "batch_size=64"])
    folder = train_recipe(first, tmp_path / "first")
    settings = ["optimizer=rwsam", f"optimizer.pretrained={folder}", "schedule.learning_rate=0.05"]
    stopped_and_resumed([*settings, "schedule.middle=0.03"], tmp_path, monkeypatch)


def test_a_run_whose_folder_has_moved_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed between a stop and the rest, and again before it is evaluated and reported."""
    recipe = get_recipe("digits-lt").set(["epochs=2", "backbone.width=4", "batch_size=64", "checkpoint_every=4 steps"])
    whole = RunDir(train_recipe(recipe, tmp_path / "whole"))
    (tmp_path / "begun").mkdir()
    stop_before(9, recipe, tmp_path / "begun" / "run", monkeypatch)
    moved = RunDir((tmp_path / "begun").rename(tmp_path / "elsewhere") / "run")
    train_recipe(recipe, moved.path, resume=True)
    assert moved.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    again = moved.path.rename(tmp_path / "again")
    assert evaluate(again) == evaluate(whole.path)
    assert write_report(again) == again / "report.html"


def contents(run: RunDir) -> list[object]:
    """Metrics, encoders, and by its checksum the last checkpoint: weights, optimiser, pi and every memory."""
    files = [run.metrics_file, run.encoder_file, run.best_file]
    found = [file.read_bytes() if file.exists() else None for file in files]
    return [*found, torch.load(run.checkpoint_file(24), weights_only=True)["sha256"]]


@pytest.mark.slow
def test_a_run_killed_three_times_at_random_moments_equals_one_never_stopped(
    images: Path, unbroken: Unbroken, tmp_path: Path
) -> None:
    killed, random = RunDir(tmp_path / "killed"), Random(1)
    deaths = [after(random.uniform(0, 0.3 * unbroken.seconds)) for _ in range(3)]
    codes = train(images, killed.path, [*deaths, NO_DEATH])
    assert -9 in codes[:3]
    assert codes[-1] == 0
    assert contents(killed) == contents(unbroken.run)


@pytest.mark.soak
def test_fifty_runs_killed_at_random_moments_equal_one_never_stopped(
    images: Path, unbroken: Unbroken, tmp_path: Path
) -> None:
    """Each is killed after random times, before random steps and inside the writing of random checkpoints."""
    random, kills = Random(0), 0
    for attempt in range(50):
        killed = RunDir(tmp_path / f"killed{attempt}")
        deaths = [
            *(after(random.uniform(0, 0.5 * unbroken.seconds)) for _ in range(3)),
            *(before_step(random.randrange(24)) for _ in range(2)),
            *(inside(f"step-{3 * random.randint(1, 8):09d}.pt") for _ in range(2)),
        ]
        random.shuffle(deaths)
        *codes, last = train(images, killed.path, [*deaths, NO_DEATH])
        assert last == 0
        assert contents(killed) == contents(unbroken.run), f"run {attempt}"
        kills += codes.count(-9)
        print(f"{attempt + 1} runs, {kills} kills, all resumed to the same bits")
