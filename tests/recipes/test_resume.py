"""Killed with -9 again and again and resumed, a run equals one that was never stopped, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from evensphere.engine import train as engine
from evensphere.ops.schedule import Progress
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train as train_recipe
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
# optimiser step `kill_step`, or half-way through writing `kill_file`.
SCRIPT = """
import json, os, sys
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
    child = os.fork()
    if child == 0:
        go(*job)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

Death = tuple[int | None, str]
NO_DEATH: Death = (None, "")


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


def test_a_run_killed_again_and_again_equals_one_never_stopped(images: Path, tmp_path: Path) -> None:
    unbroken, killed = RunDir(tmp_path / "unbroken"), RunDir(tmp_path / "killed")
    assert train(images, unbroken.path, [NO_DEATH]) == [0]
    resolved = unbroken.read_recipe()["resolved"]
    assert (resolved["num_images"], resolved["steps_per_epoch"], resolved["warm_up_steps"]) == (61, 4, 12)

    deaths: list[Death] = [
        (1, ""),  # before the first checkpoint: start over
        (5, ""),  # in the middle of an epoch
        (None, "step-000000009.pt"),  # half-way through writing a checkpoint
        (11, ""),  # before the last step of the warm-up, in the partial batch
        (12, ""),  # at the stage change
        (14, ""),  # inside the ramp
        (None, "step-000000024.pt"),  # the last checkpoint of all
    ]
    assert train(images, killed.path, [*deaths, NO_DEATH]) == [-9] * len(deaths) + [0]

    assert killed.metrics_file.read_bytes() == unbroken.metrics_file.read_bytes()
    assert killed.encoder_file.read_bytes() == unbroken.encoder_file.read_bytes()
    assert killed.checkpoint_steps() == unbroken.checkpoint_steps()
    states = [flatten(torch.load(run.checkpoint_file(24), weights_only=True)) for run in (unbroken, killed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert same(value, states[1][name]), name
    assert any("population/values" in name for name in states[0]), "the memory is in the checkpoint"
    steps = [event["step"] for event in killed.read_metrics() if event["event"] == "step"]
    assert steps == list(range(24)), "no line is missing or doubled"


def test_a_finished_run_is_left_as_it_is(images: Path, tmp_path: Path) -> None:
    out = RunDir(tmp_path / "run")

    def files() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in out.path.rglob("*") if file.name != ".lock"}

    assert train(images, out.path, [NO_DEATH]) == [0]
    before = files()
    assert train(images, out.path, [NO_DEATH]) == [0]
    assert files() == before
    assert out.read_recipe()["resolved"]["anchors"] == 6


class Stopped(Exception):
    """Instead of a power cut."""


def stopped_and_resumed(settings: list[str], path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Two epochs of six steps, stopped inside the second and resumed, against the same run unbroken: the same bytes.

    Returns the last checkpoint, flat.
    """
    small = ["epochs=2", "backbone.width=4", "batch_size=64", "checkpoint_every=4 steps", "evaluate_every=2 epochs"]
    recipe = get_recipe("digits-lt").set([*small, *settings])
    take_step = engine._take_step

    def dying(training: Any, step_module: Any, batch: Any, progress: Progress, fabric: Any) -> dict[str, Any]:
        if progress.step == 9:
            raise Stopped
        return take_step(training, step_module, batch, progress, fabric)

    unbroken, stopped = RunDir(path / "unbroken"), RunDir(path / "stopped")
    train_recipe(recipe, unbroken.path)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_take_step", dying)
        with pytest.raises(Stopped):
            train_recipe(recipe, stopped.path)
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


@pytest.mark.soak
def test_a_run_killed_at_random_moments_equals_one_never_stopped(images: Path, tmp_path: Path) -> None:
    unbroken = RunDir(tmp_path / "unbroken")
    assert train(images, unbroken.path, [NO_DEATH]) == [0]
    random = Random(0)
    for attempt in range(10):
        killed = RunDir(tmp_path / f"killed{attempt}")
        steps: list[Death] = [(step, "") for step in sorted(random.sample(range(24), 4))]
        files: list[Death] = [(None, f"step-{step:09d}.pt") for step in sorted(random.sample(range(3, 25, 3), 2))]
        train(images, killed.path, sorted(steps + files, key=lambda _: random.random()))
        assert train(images, killed.path, [NO_DEATH]) == [0]
        assert killed.metrics_file.read_bytes() == unbroken.metrics_file.read_bytes()
        assert killed.encoder_file.read_bytes() == unbroken.encoder_file.read_bytes()
