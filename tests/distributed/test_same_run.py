"""A run in several processes is the run in one: losses, gradients, pi, memories and weights, to 1e-9 in float64."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from tests.distributed import train_each as harness
from tests.distributed.train_each import Job, train_each
from torch import Tensor

from evensphere.data.digits import digits
from evensphere.engine.processes import Processes
from evensphere.methods import METHODS
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


DNC = 1e-4  # its second expert and its distillation were 1e-5 apart; why is not known


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 61 digits."""
    source = digits(imbalance=20).pretrain
    lines = tmp_path_factory.mktemp("list") / "images.txt"
    lines.write_text("\n".join(source.location(i) for i in range(0, 6 * IMAGES, 6)))
    return lines


def job(folder: Path, name: str, images: Path, *more: str, mistake: str = "") -> Job:
    """The run of a method (the first word of the name) on the list of images."""
    method = name.split()[0]
    given = [*RUN, f"images={images}", f"method={method}", "method.embedding_dim=16", *SIZES.get(method, []), *more]
    return Job(str(folder / name), "digits-lt", given, mistake)


def train_in(processes: int, jobs: list[Job], folder: Path) -> None:
    """Train all of them, one after the other, with the same processes; one is this one."""
    if processes == 1:
        train_each(jobs, Processes())
        return
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(harness.__file__)), str(file), str(processes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr


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


# --- the same ---------------------------------------------------------------------------------------------------------


def test_simclr_with_gh_in_two_processes(images: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        train_in(processes, [job(tmp_path / str(processes), "simclr", images)], tmp_path)
    assert_same(tmp_path / "2" / "simclr", tmp_path / "1" / "simclr")
    assert any(event.get("gh", 0) > 0 for event in logged(tmp_path / "2" / "simclr")), "GH has acted"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 61 pictures."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    for i, digit in enumerate(load_digits().images[:IMAGES]):
        Image.fromarray((digit * 15).astype("uint8")).resize((16, 16 + i % 3)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def runs(images: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs in one, two and four processes, in folders of these names."""
    root = tmp_path_factory.mktemp("runs")
    some = root / "16.txt"
    some.write_text("\n".join(images.read_text().splitlines()[:16]))
    for processes in (1, 2, 4):
        folder = root / str(processes)
        jobs = [job(folder, name, images) for name in METHODS]
        jobs += [job(folder, f"{name} once", some, *ONE_STEP) for name in METHODS]
        jobs += moved(root, folder, images)
        if processes < 4:
            weighed = ["optimizer=rwsam", f"optimizer.pretrained={root / '1' / 'simclr'}"]
            jobs.append(job(folder, "simclr rwsam", images, *weighed))
            jobs.append(job(folder, "simclr dnc", images, "stages=dnc", "stages.clusters=2", "epochs=6"))
            jobs.append(unreadable(folder, photos))
        if processes == 2:
            jobs += [job(folder, f"simclr {wrong}", images, mistake=wrong) for wrong in ("gather", "factor")]
        train_in(processes, jobs, folder)
    return root


MOVES = [(1, 2), (2, 4)]  # from so many processes to so many
MOVED = ["simclr", "moco", "bcl"]


def moved(root: Path, folder: Path, images: Path) -> list[Job]:
    """Runs begun by other processes, in the middle of an epoch, to go on with in this folder's."""
    jobs = []
    for source, target in MOVES:
        if str(target) == folder.name:
            jobs += [take_over(root / str(source) / name, folder, f"{name} from {source}", images) for name in MOVED]
    return jobs


def take_over(begun: Path, folder: Path, name: str, images: Path) -> Job:
    run = RunDir(folder / name)
    shutil.copytree(begun, run.path)
    run.encoder_file.unlink()
    run.checkpoint_file(run.checkpoint_steps()[-1]).unlink()
    return job(folder, name, images)


def unreadable(folder: Path, photos: Path) -> Job:
    """Five of its images, two of a batch, are lost once training has begun."""
    given = [*RUN, "workers=0", "storage=files", "views=cifar", "views.size=8", "backbone=resnet-small"]
    given += ["backbone.width=4", "backbone.stages=2", f"data.path={photos}"]
    return Job(str(folder / "unreadable"), "folder", given, "", [3, 4, 17, 30, 55])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_with_gh(runs: Path, name: str, processes: int) -> None:
    assert_same(runs / str(processes) / name, runs / "1" / name)
    # one step in single precision: the momentum is the gradient
    assert_same(runs / str(processes) / f"{name} once", runs / "1" / f"{name} once", tolerance=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["gather", "factor"])
def test_a_wrong_gradient_of_gather_would_be_seen(runs: Path, mistake: str) -> None:
    assert differences(runs / "2" / f"simclr {mistake}", runs / "1" / "simclr", 1e-3)


@pytest.mark.slow
def test_two_passes_a_step_and_weighed_images(runs: Path) -> None:
    assert_same(runs / "2" / "simclr rwsam", runs / "1" / "simclr rwsam")


@pytest.mark.slow
def test_every_stage_of_dnc(runs: Path) -> None:
    stages = sorted(folder.name for folder in (runs / "1" / "simclr dnc" / "stages").iterdir())
    trained = [stage for stage in stages if "clusters" not in stage]
    assert len(trained) == 4
    for stage in trained:
        mine, theirs = (runs / processes / "simclr dnc" / "stages" / stage for processes in ("2", "1"))
        assert_same(mine, theirs, DNC if "base" not in stage else 1e-9)
    assert (runs / "2" / "simclr dnc" / "encoder.safetensors").exists()


@pytest.mark.slow
def test_images_that_become_unreadable(runs: Path) -> None:
    assert_same(runs / "2" / "unreadable", runs / "1" / "unreadable")
    skipped = [sorted(RunDir(runs / processes / "unreadable").read_skipped()) for processes in ("1", "2")]
    assert skipped[0] == skipped[1]
    assert len(skipped[0]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", MOVED)
def test_a_run_goes_on_in_any_number_of_processes(runs: Path, name: str, images: Path) -> None:
    assert_same(runs / "2" / f"{name} from 1", runs / "1" / name)
    assert_same(runs / "4" / f"{name} from 2", runs / "1" / name)
    train_in(1, [take_over(runs / "2" / name, runs / "1", f"{name} from 2", images)], runs)
    assert_same(runs / "1" / f"{name} from 2", runs / "1" / name)
