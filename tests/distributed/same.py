"""Runs as small as they can be, trained in any number of processes, and whether two of them are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.distributed import train_each as harness
from tests.distributed.train_each import Job, train_each
from torch import Tensor

from evensphere.data.digits import digits
from evensphere.engine.processes import Processes
from evensphere.rundir import RunDir

IMAGES = 61  # in batches of 16: three full ones and one of 13, which no number of processes shares alike

RUN = [
    "batch_size=16", "epochs=5", "precision=64-true", "checkpoint_every=7 steps", "evaluate_every=5 epochs",
    "backbone.width=4", "schedule.learning_rate=0.05", "schedule.middle=0.03", "schedule.warm_up=0 epochs",
    "schedule.stage_change=0.4", "harmonizer.anchors=5", "harmonizer.warm_up=0.4", "harmonizer.ramp=1 epochs",
    "harmonizer.update_every=1 epochs",
]  # fmt: skip
ONE_STEP = [
    "epochs=1",
    "precision=32-true",
    "harmonizer.warm_up=0",
    "harmonizer.ramp=0",
    "schedule.stage_change=0 epochs",
]

SIZES = {
    "moco": ["method.queue_size=40", "method.momentum=0.9", "method.symmetric=true"],
    "byol": ["method.hidden_dim=16", "method.momentum=0.9"],
    "simsiam": [  # its gradients grow with every step, and with them what rounding left
        "method.hidden_dim=16",
        "method.predictor_dim=8",
        "schedule.learning_rate=0.005",
        "schedule.middle=0.003",
    ],
    "moco-v3": ["method.hidden_dim=16", "method.momentum=0.9"],
    "nnclr": ["method.queue_size=40", "method.hidden_dim=16", "method.predictor_dim=16"],
    "ts": ["method.period=4 epochs"],
    "swav": ["method.prototypes=6"],
    "dino": ["method.hidden=16", "method.outputs=12", "method.twin_momentum=0.9", "views.local_views=2"],
    "pmsn": ["method.hidden=16", "method.prototypes=6", "method.twin_momentum=0.9"],
}


def write_images(folder: Path) -> Path:
    """A list of 61 digits."""
    source, lines = digits(imbalance=20).pretrain, folder / "images.txt"
    lines.write_text("\n".join(source.location(i) for i in range(0, 6 * IMAGES, 6)))
    return lines


def job(folder: Path, name: str, images: Path, *more: str, mistake: str = "") -> Job:
    """The run of a method (the first word of the name) on the list of images."""
    method = name.split()[0]
    given = [*RUN, f"images={images}", f"method={method}", "method.embedding_dim=16", *SIZES.get(method, []), *more]
    return Job(str(folder / name), "digits-lt", given, mistake)


def train_in(processes: int, jobs: list[Job], folder: Path, sharding: str = "none") -> None:
    """Train all of them, one after the other, with the same processes; one is this one."""
    if processes == 1:
        train_each(jobs, Processes())
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(harness.__file__)), str(file), str(processes), sharding]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr


def take_over(begun: Path, folder: Path, name: str, images: Path) -> Job:
    run = RunDir(folder / name)
    shutil.copytree(begun, run.path)
    run.encoder_file.unlink()
    run.checkpoint_file(run.checkpoint_steps()[-1]).unlink()
    return job(folder, name, images)


# --- comparing runs ---------------------------------------------------------------------------------------------------


def leaves(state: object, path: str = "") -> dict[str, object]:
    """Everything in a checkpoint, by where it is."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in leaves(value, f"{path}/{key}").items()}
    if isinstance(state, list | tuple):
        return {k: v for i, value in enumerate(state) for k, v in leaves(value, f"{path}/{i}").items()}
    return {path: state}


def final_state(run: Path | str) -> dict[str, object]:
    folder = RunDir(run)
    state = torch.load(folder.checkpoint_file(folder.checkpoint_steps()[-1]), weights_only=True)
    del state["metrics_size"], state["sha256"]  # which follow the digits of numbers
    return leaves(state)


def differences(run: Path | str, other: Path | str, tolerance: float) -> list[str]:
    """Where the final checkpoints of two runs, which hold weights, the optimiser's momentum (and so gradients), twins,
    memories, pi and more, are further apart than allowed, in proportion to the largest number of a tensor, of momentum
    at least to a hundredth of the largest of all: a bias before BatchNorm has no gradient but rounding. Numbers of
    single precision, in which memories are kept, may differ in their last bits."""
    state, theirs = final_state(run), final_state(other)
    assert state.keys() == theirs.keys()
    momentum = [_largest(value) for name, value in state.items() if name.endswith("/momentum_buffer")]
    least = {name: max(1e-3, *momentum) / 100 for name in state if name.endswith("/momentum_buffer")}
    return [name for name, value in state.items() if not _close(value, theirs[name], tolerance, least.get(name, 1e-3))]


def _close(value: object, other: object, tolerance: float, least: float) -> bool:
    if not isinstance(value, Tensor) or not isinstance(other, Tensor):
        return value == other
    if not value.is_floating_point():
        return torch.equal(value, other)
    allowed = max(tolerance, 0.0 if value.dtype == torch.float64 else 1e-6)
    return bool((value - other).abs().max() <= allowed * max(_largest(value), least))


def _largest(value: object) -> float:
    return float(value.abs().max()) if isinstance(value, Tensor) else 0.0


def logged(run: Path | str) -> list[dict[str, float]]:
    return [event for event in RunDir(run).read_metrics() if event["event"] in ("step", "population")]


def assert_same(run: Path | str, other: Path | str, tolerance: float = 1e-9) -> None:
    assert differences(run, other, tolerance) == []
    mine, theirs = logged(run), logged(other)
    assert len(mine) == len(theirs) > 0
    for event, expected in zip(mine, theirs, strict=True):
        assert event.keys() == expected.keys()
        for name in expected.keys() - {"event"}:  # Fabric hands losses out in single precision
            value = expected[name]
            assert event[name] == pytest.approx(value, rel=max(tolerance, 1e-6), abs=1e-6), (name, expected["step"])
