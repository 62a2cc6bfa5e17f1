"""The training step: what it asks of the device, and that it never waits for it."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource, Batch
from evensphere.engine.optim import plain, sgd
from evensphere.engine.train import StepModule, Training, _take_step
from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods.simclr import SimCLR
from evensphere.ops.schedule import Duration

SIZE = 16


class Encoder(nn.Sequential):
    num_features = 8

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def every_operation(local_views: int = 0) -> Views:
    return Views(SIZE, blur=0.5, solarize=0.3, local_views=local_views, interpolation="bicubic")


def training_of(harmonizer: Harmonizer | NoHarmonizer, views: Views) -> Training:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (64, 3, 20, 20), dtype=torch.uint8)
    method = SimCLR(Encoder(), embedding_dim=16)
    return Training(
        loader=Loader(ArraySource("noise", pixels), 32, views, seed=0),
        views=views,
        method=method,
        harmonizer=harmonizer,
        optimizer=sgd(method.parameters()),
        learning_rate=plain(4, 0.1, warm_up="0 epochs"),
        epochs=4,
        seed=0,
        evaluate_every=Duration.parse("1 epochs"),
        checkpoint_every=Duration.parse("1 epochs"),
    )


def test_a_step_is_the_loss_of_the_views_followed_by_the_optimiser() -> None:
    """Against the same written out: forward, backward, torch's plain SGD."""
    training, fabric = training_of(NoHarmonizer(), every_operation()), Fabric(accelerator="cpu", devices=1)
    twin = copy.deepcopy(training.method)
    rate = training.learning_rate(0)
    theirs = torch.optim.SGD(twin.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, foreach=False)
    module, training.optimizer = fabric.setup(StepModule(training.method, NoHarmonizer()), training.optimizer)
    for step, batch in training.loader.batches(0, 2):
        progress = training.progress(step)
        record = _take_step(training, module, batch, progress, fabric)
        loss = twin(training.views(batch, 0), batch.index, progress).loss
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        assert record["loss"] == loss
        assert record["lr"] == rate
    for mine, expected in zip(training.method.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, expected)
    assert all(parameter.grad is None for parameter in training.method.parameters())


# --- views on a device of which nothing can be read: the meta device refuses every question about a number


@pytest.mark.parametrize("policy", ["exact", "fast"])
@pytest.mark.parametrize("cropped", [False, True])
def test_views_ask_the_device_for_no_number(policy: str, cropped: bool) -> None:
    views = every_operation(local_views=1).with_policy(policy)
    sides = [SIZE, SIZE, views.local_size] if cropped else [20]
    on_device = tuple(torch.empty(32, 3, side, side, dtype=torch.uint8, device="meta") for side in sides)
    batch = Batch(on_device if cropped else on_device[0], torch.arange(32))
    shapes = [tuple(view.shape) for view in views(batch, 0)]
    assert shapes == [(32, 3, SIZE, SIZE)] * 2 + [(32, 3, views.local_size, views.local_size)]
    with pytest.raises((RuntimeError, NotImplementedError)):
        bool(on_device[0].any())  # what such a question would have met


# --- the same of a whole step, where there is a GPU


@pytest.fixture
def no_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, whose driver reports every wait")
@pytest.mark.parametrize("harmonized", [False, True])
def test_a_step_never_waits_for_the_gpu(harmonized: bool, request: pytest.FixtureRequest) -> None:
    harmonizer = Harmonizer(16, 64, anchors=8, warm_up=0, ramp="1 steps") if harmonized else NoHarmonizer()
    training = training_of(harmonizer, every_operation())
    fabric = Fabric(accelerator="cuda", devices=1, precision="bf16-mixed")
    module = StepModule(training.method, harmonizer).to(memory_format=torch.channels_last)
    module, training.optimizer = fabric.setup(module, training.optimizer)
    batches = training.loader.batches(0, 4)
    step, batch = next(batches)
    _take_step(training, module, batch, training.progress(step), fabric)  # memories move to the GPU, kernels load
    torch.cuda.synchronize()
    request.getfixturevalue("no_waiting")
    for step, batch in batches:
        record = _take_step(training, module, batch, training.progress(step), fabric)
    torch.cuda.set_sync_debug_mode("default")
    assert all(value.isfinite() for value in record.values() if isinstance(value, Tensor))
