"""Steps that must not be taken leave no trace, whatever the method, the optimiser and the fault."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from tests.contract.test_methods import leaves, same
from torch import Tensor, nn

from evensphere.data.augment import VIEWS, Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Batch
from evensphere.engine.optim import OPTIMIZERS, plain
from evensphere.engine.train import Training, fit
from evensphere.engine.watchdog import FoundLate, Watchdog, geometry, is_finite, regions_used
from evensphere.errors import TrainingStopped
from evensphere.gh.harmonizer import Harmonizer
from evensphere.methods import METHODS
from evensphere.methods.base import Method, Output
from evensphere.methods.simclr import SimCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Duration, Progress
from evensphere.ops.sinkhorn import Pace
from evensphere.recipes.part import Part, build
from evensphere.rundir import RunDir

IMAGES, BATCH = 32, 8  # 4 steps an epoch
STEPS = 12
SIZES: dict[str, dict[str, Any]] = {
    "byol": {"hidden_dim": 16},
    "moco": {"queue_size": 12},  # less than two batches: it goes round
    "moco-v3": {"hidden_dim": 16},
    "simsiam": {"hidden_dim": 16, "predictor_dim": 8},
    "nnclr": {"hidden_dim": 16, "predictor_dim": 16, "queue_size": 12},
    "dino": {"hidden": 16, "outputs": 32},
    "pmsn": {"hidden": 16, "prototypes": 32},
}


def faulty(method: Method, steps: set[int], fault: str) -> Method:
    """The method, of which at some steps the loss, or only its gradient, is not finite. Nothing else is different."""
    kind = type(method)

    class Faulty(kind):  # type: ignore[misc, valid-type]
        def forward(self, views: Any, index: Any, progress: Any) -> Output:
            output: Output = super().forward(views, index, progress)
            if progress.step not in steps:
                return output
            bad = {
                "nan": lambda: output.loss * math.nan,
                "inf": lambda: output.loss + math.inf,
                "gradient": lambda: output.loss + (output.embeddings[1].sum() * 0).abs().sqrt(),
            }[fault]()
            per_sample = None if output.per_sample is None else output.per_sample * math.nan
            return output._replace(loss=bad, per_sample=per_sample)

    method.__class__ = Faulty
    return method


class Gaps(Loader):
    """A loader that leaves some steps out."""

    left_out: frozenset[int] = frozenset()

    def batches(self, first_step: int, total_steps: int) -> Iterator[tuple[int, Batch]]:
        return (item for item in super().batches(first_step, total_steps) if item[0] not in self.left_out)


def training_of(method: str = "simclr", optimizer: str = "sgd", watchdog: Watchdog | None = None) -> Training:
    """Two epochs without GH's loss and one with it; pi is made anew after every step of the last."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 1, 8, 8), dtype=torch.uint8, generator=generator)
    views = Views(8, **VIEWS["digits"])
    torch.manual_seed(0)
    encoder = resnet_small(1, width=4, stages=2)
    part = Part(method, embedding_dim=12, **SIZES.get(method, {}))
    built: Method = build("method", part, encoder=encoder, num_samples=IMAGES)
    options = {"pretrained": "elsewhere"} if optimizer == "rwsam" else {}
    return Training(
        loader=Gaps(ArraySource("noise", pixels), BATCH, views, seed=0),
        views=views,
        method=built,
        harmonizer=Harmonizer(12, IMAGES, anchors=4, warm_up="2 epochs", ramp=0, update_every="1 steps", queue=12),
        optimizer=build(
            "optimizer",
            Part(optimizer, **options),
            parameters=built.parameters(),
            features_of=lambda _: torch.randn(IMAGES, 4, generator=generator),
        ),
        learning_rate=plain(3, 0.05, warm_up="1 epochs"),
        epochs=3,
        seed=0,
        evaluate_every=Duration.parse("3 epochs"),
        checkpoint_every=Duration.parse("5 steps"),
        watchdog=watchdog or Watchdog(),
    )


def trained(training: Training, folder: Path) -> RunDir:
    run = RunDir(folder)
    run.create()
    fit(training, run, Fabric(accelerator="cpu", devices=1, precision="32-true"))
    return run


def leave_out(training: Training, steps: set[int]) -> None:
    assert isinstance(training.loader, Gaps)
    training.loader.left_out = frozenset(steps)


def state_of(training: Training) -> dict[str, object]:
    """Everything that a step could have changed."""
    optimizer = training.optimizer.state_dict()
    parts = {"method": training.method.state_dict(), "harmonizer": training.harmonizer.state_dict()}
    return leaves({**parts, "optimizer": {str(k): v for k, v in optimizer["state"].items()}})


def check(
    method: str, optimizer: str, steps: set[int], fault: str, folder: Path, watchdog: Watchdog | None = None
) -> RunDir:
    """A run with faults ends as the run in which these steps never were."""
    bad, good = training_of(method, optimizer, watchdog), training_of(method, optimizer)
    faulty(bad.method, steps, fault)
    leave_out(good, steps)
    runs = trained(bad, folder / "bad"), trained(good, folder / "good")
    assert same((state_of(bad), state_of(good)))
    events, others = (run.read_metrics() for run in runs)
    assert [event for event in events if event["event"] != "skipped"] == others
    assert [event["step"] for event in events if event["event"] == "skipped"] == sorted(steps)
    return runs[0]


# steps of the warm-up, the one at whose end pi is first made, one of the last epoch, and ones that end an epoch
FAULTS = {0, 3, 4, 7, 9}


@pytest.mark.parametrize("fault", ["nan", "inf", "gradient"])
def test_a_skipped_step_leaves_no_trace(fault: str, tmp_path: Path) -> None:
    check("simclr", "sgd", FAULTS, fault, tmp_path)


@pytest.mark.parametrize("method", ["moco", "bcl"])
def test_nor_in_what_a_method_remembers(method: str, tmp_path: Path) -> None:
    check(method, "sgd", FAULTS, "nan", tmp_path)


@pytest.mark.parametrize("optimizer", ["adamw", "asam"])
def test_nor_in_what_an_optimiser_remembers(optimizer: str, tmp_path: Path) -> None:
    check("simclr", optimizer, FAULTS, "nan", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_nor_in_any_method(method: str, tmp_path: Path) -> None:
    check(method, "sgd", FAULTS, "nan", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["simclr", "swav", "byol"])
def test_nor_in_any_optimiser(method: str, optimizer: str, tmp_path: Path) -> None:
    check(method, optimizer, FAULTS, "gradient", tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("fault", ["nan", "gradient"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_the_whole_matrix(method: str, optimizer: str, fault: str, tmp_path: Path) -> None:
    if optimizer == "rwsam" and not training_of(method).method.per_sample:
        pytest.skip("its loss is not made of one for each image")
    check(method, optimizer, FAULTS, fault, tmp_path)


def test_the_climb_of_sam_is_undone_where_only_its_second_pass_is_not_finite(tmp_path: Path) -> None:
    """The fault is in a place that the weights only reach by climbing."""
    bad, good = training_of("simclr", "asam"), training_of("simclr", "asam")
    passes: list[int] = []
    forward = bad.method.forward

    def second_of_step_five(views: Any, index: Any, progress: Any) -> Output:
        passes.append(progress.step)
        output: Output = forward(views, index, progress)
        second = passes.count(5) == 2 and progress.step == 5
        return output._replace(loss=output.loss * math.nan) if second else output

    bad.method.forward = second_of_step_five  # type: ignore[method-assign]
    leave_out(good, {5})
    trained(bad, tmp_path / "bad"), trained(good, tmp_path / "good")
    assert passes.count(5) == 2
    assert same((state_of(bad), state_of(good)))


# --- where nobody waits for the verdict -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_found_late_the_run_goes_back_and_ends_the_same(method: str, tmp_path: Path) -> None:
    """Step 11 is the last: its verdict is read before the last checkpoint is written."""
    run = check(method, "sgd", {2, 6, 11}, "nan", tmp_path, Watchdog(waits=()))
    assert all(leaves_are_finite(run, step) for step in run.checkpoint_steps())


def test_what_was_ruined_is_not_evaluated(tmp_path: Path) -> None:
    """The verdict on step 6 is not there yet when an evaluation is due; looked at, its features would end the run."""
    training = training_of("simclr", "sgd", Watchdog(waits=()))
    seen: list[bool] = []

    def monitor(encoder: nn.Module) -> dict[str, float | None]:
        seen.append(all(bool(parameter.isfinite().all()) for parameter in encoder.parameters()))
        return {"knn": 50.0}

    training.monitor, training.evaluate_every = monitor, Duration.parse("1 step")
    faulty(training.method, {6}, "nan")
    trained(training, tmp_path)
    assert seen
    assert all(seen)


def leaves_are_finite(run: RunDir, step: int) -> bool:
    state = torch.load(run.checkpoint_file(step), weights_only=True)
    tensors = [value for value in leaves(state["model"]).values() if isinstance(value, Tensor)]
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def test_a_verdict_is_not_read_before_it_is_there() -> None:
    watchdog, weight = Watchdog(waits=()), nn.Parameter(torch.zeros(3))
    weight.grad = torch.full((3,), math.nan)
    for _ in range(8):
        watchdog.look(torch.zeros(()), [weight])
    with pytest.raises(FoundLate):
        watchdog.look(torch.zeros(()), [weight])
    assert watchdog.careful


# --- enough is enough -------------------------------------------------------------------------------------------------


def test_several_in_a_row_stop_the_run(tmp_path: Path) -> None:
    training = training_of()
    faulty(training.method, {0, 1, 2, 3, 6, 7, 8, 9, 10}, "nan")
    with pytest.raises(TrainingStopped, match=r"step 10 \(epoch 3\), since 5 steps in a row .* rate .* step 10 "):
        trained(training, tmp_path)
    assert RunDir(tmp_path).read_metrics()[-1]["event"] == "stopped"
    assert leaves_are_finite(RunDir(tmp_path), 10)


def test_many_in_all_stop_the_run_also_when_it_was_resumed(tmp_path: Path) -> None:
    training = training_of(watchdog=Watchdog(in_total=4))
    faulty(training.method, {1, 3, 8, 10}, "nan")
    with pytest.raises(TrainingStopped, match="4 steps of this run could not be taken"):
        trained(training, tmp_path)
    again = training_of(watchdog=Watchdog(in_total=4))
    faulty(again.method, {10}, "nan")
    with pytest.raises(TrainingStopped, match=r"step 10 .* 4 steps of this run"):  # 8 and before are remembered
        trained(again, tmp_path)


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path: Path) -> None:
    """A finite gradient, times a rate that is too large for any weight to hold."""
    training = training_of()
    training.learning_rate = lambda epoch: 1e38 if epoch else 0.05
    with pytest.raises(TrainingStopped, match="weights are no longer finite, most likely because the learning rate"):
        trained(training, tmp_path)
    assert all(leaves_are_finite(RunDir(tmp_path), step) for step in RunDir(tmp_path).checkpoint_steps())


class Blinding(Views):
    """Views of which those of image 5 are not finite."""

    def __call__(self, batch: Batch, epoch: int, strength: Tensor | None = None) -> tuple[Tensor, ...]:
        views = super().__call__(batch, epoch, strength)
        return tuple(torch.where((batch.index == 5)[:, None, None, None], math.inf, view) for view in views)


def test_an_image_that_is_not_finite_is_named(tmp_path: Path) -> None:
    training = training_of()
    training.views = Blinding(8, **VIEWS["digits"])
    run = trained(training, tmp_path)
    reasons = [event["reason"] for event in run.read_metrics() if event["event"] == "skipped"]
    assert reasons == ["pixels of 1 image(s) of the batch are not finite (number 5)"] * 3  # once an epoch
    assert leaves_are_finite(run, STEPS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_number_is_enough(value: float, place: int) -> None:
    loss, gradients = torch.tensor(1.0), [torch.ones(3), torch.ones(2, 2)]
    assert is_finite(loss, gradients)
    (loss, gradients[0][1], gradients[1][1])[place].fill_(value)
    assert not is_finite(loss, gradients)


# --- networks that go wrong -------------------------------------------------------------------------------------------


def test_how_embeddings_lie_against_closed_forms() -> None:
    corners = torch.cat([torch.eye(5), -torch.eye(5)]) * torch.arange(1, 11)[:, None]  # length does not matter
    assert {name: round(float(value), 5) for name, value in geometry(corners).items()} == {"spread": 1, "directions": 5}
    point = geometry(torch.ones(7, 3) + 1e-4 * torch.eye(7, 3))
    assert point["spread"] < 1e-6
    line = geometry(torch.tensor([[1.0, 0.1], [1.0, -0.1]]).repeat(4, 1))
    assert round(float(line["directions"]), 5) == 1
    assert math.isclose(line["spread"], 1 - 1 / 1.01, rel_tol=1e-4)
    few, many = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)), torch.eye(3)
    unit = torch.nn.functional.normalize(few, dim=1)
    values = torch.linalg.eigvalsh((unit - unit.mean(0)).T @ (unit - unit.mean(0)))
    assert torch.isclose(geometry(few)["directions"], values.sum() ** 2 / values.square().sum())
    assert round(regions_used(torch.full((4,), 0.25)), 6) == 1
    assert regions_used(many[0]) == 0


class Attracted(SimCLR):
    """All images are drawn to one point; there is no projector whose BatchNorm would keep them apart."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__(encoder, 12)
        self.projector = nn.Linear(16, 12)  # type: ignore[assignment]

    def forward(self, views: Any, index: Any, progress: Any) -> Output:
        output = super().forward(views, index, progress)
        return output._replace(loss=output.embeddings[0].sub(1).square().mean(), per_sample=None)


def warnings_of(run: RunDir) -> list[str]:
    return [event["kind"] for event in run.read_metrics() if event["event"] == "warning"]


def test_a_collapse_is_told_once_and_so_are_regions_that_it_empties(tmp_path: Path) -> None:
    training = training_of(watchdog=Watchdog(settling=0))
    torch.manual_seed(0)
    training.method = Attracted(resnet_small(1, width=8, stages=2))
    training.optimizer = torch.optim.SGD(training.method.parameters(), lr=0.0)
    training.learning_rate = lambda epoch: 0.3
    training.harmonizer = Harmonizer(12, IMAGES, anchors=4, warm_up=0, ramp=0, update_every="1 steps", momentum=(0, 0))
    run = trained(training, tmp_path)
    assert warnings_of(run).count("collapse") == 1
    assert warnings_of(run).count("regions") == 1
    assert next(event for event in run.read_metrics() if event["event"] == "warning")["sentence"]


def test_a_transport_problem_that_is_not_solved_is_told(tmp_path: Path) -> None:
    training = training_of(watchdog=Watchdog(settling=0))
    assert isinstance(training.harmonizer, Harmonizer)
    training.harmonizer.max_iterations = 1
    training.harmonizer.pace = Pace(1, training.harmonizer.tolerance)
    training.harmonizer.sinkhorn_temperature = 0.005
    assert "sinkhorn" in warnings_of(trained(training, tmp_path))


def test_a_healthy_run_is_told_nothing(tmp_path: Path) -> None:
    assert warnings_of(trained(training_of(watchdog=Watchdog(settling=0)), tmp_path)) == []


def test_a_warning_holds_until_it_recovers_also_when_resumed() -> None:
    watchdog, later = Watchdog(settling=0), Progress(50, 1, 100)
    seen = [watchdog.judge({"spread": value}, later) for value in (0.5, 0.04, 0.03, 0.07, 0.2, 0.07, 0.04)]
    assert [[event["event"] for event in events] for events in seen] == [
        [], ["warning"], [], [], ["recovered"], [], ["warning"]
    ]  # fmt: skip
    resumed = Watchdog(settling=0)
    resumed.resume([event for events in seen[:4] for event in events])
    assert resumed.judge({"spread": 0.03}, later) == []
    assert resumed.judge({"spread": 0.2}, later)[0]["event"] == "recovered"
    assert Watchdog(settling=0).judge({"spread": 0.0}, Progress(9, 1, 100)) == [], "a tenth of the run is too early"
    assert Watchdog(settling=60).judge({"spread": 0.0}, later) == []
