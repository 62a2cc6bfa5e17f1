"""A batch in parts: the same loss, the same gradient, less memory."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.contract.steps import PROGRESS, take_steps
from tests.contract.test_methods import leaves, same
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from evensphere.engine.micro_batches import encode_in_parts, normalises_by_parts, whole_again
from evensphere.gh.harmonizer import Harmonizer
from evensphere.methods import METHODS
from evensphere.methods.base import Method, Output
from evensphere.methods.moco import MoCo
from evensphere.methods.simclr import SimCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.contrast import info_nce
from evensphere.recipes.part import Part, build

B, PART, D = 13, 4, 12  # parts of 4, 3, 3 and 3 images
INDEX = torch.arange(B)


class WithoutBatchNorm(nn.Sequential):
    num_features = 8

    def __init__(self) -> None:
        first, second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        middle = nn.GroupNorm(2, 8), nn.ReLU(inplace=True)
        super().__init__(first, *middle, second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def make(name: str, encoder: Callable[[], nn.Module] = WithoutBatchNorm) -> tuple[Method, Harmonizer]:
    torch.manual_seed(0)
    method: Method = build("method", Part(name, embedding_dim=D), encoder=encoder(), num_samples=B)
    harmonizer = Harmonizer(D, num_samples=B, anchors=4, warm_up=0, ramp=0, update_every=1)
    return method.double(), harmonizer.double()


def views_of(step: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, B, 1, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(step)))


def losses_and_gradients(method: Method, harmonizer: Harmonizer) -> list[Tensor]:
    """Of two steps, and of the last."""
    losses = take_steps(method, harmonizer, views_of, range(PROGRESS.step, PROGRESS.step + 2), momentum=0.9)
    return [*losses, *(weight.grad for weight in method.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("name", METHODS)
def test_without_batch_norm_a_batch_in_parts_is_the_whole_batch(name: str) -> None:
    whole, parts = make(name), make(name)
    encode_in_parts(parts[0], PART)
    for mine, expected in zip(losses_and_gradients(*parts), losses_and_gradients(*whole), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    states = [leaves({str(i): part.state_dict() for i, part in enumerate(pair)}) for pair in (parts, whole)]
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        if isinstance(value, Tensor) and value.is_floating_point():
            torch.testing.assert_close(value, states[1][key], rtol=1e-9, atol=1e-9, msg=key)


# --- BatchNorm in the encoder -----------------------------------------------------------------------------------------


def test_each_part_is_normalised_by_itself_and_the_gradient_is_that_of_this() -> None:
    """Against the same written out, with an ordinary graph."""
    (method, _), (twin, _) = make("simclr", lambda: resnet_small(1, 8)), make("simclr", lambda: resnet_small(1, 8))
    assert isinstance(twin, SimCLR)
    encode_in_parts(method, PART)
    torch.manual_seed(7)
    output = method(views_of(0), INDEX, PROGRESS)
    output.loss.backward()

    torch.manual_seed(7)
    orders = [torch.randperm(B) for _ in range(2)]
    assert not torch.equal(*orders), "two views of an image are in parts of other images"
    embeddings = []
    for view, order in zip(views_of(0), orders, strict=True):
        features = torch.empty(B, 32, dtype=torch.float64)
        for part in order.split([4, 3, 3, 3]):
            features[part] = twin.encoder(view[part])
        embeddings.append(twin.projector(features))
    loss = info_nce(embeddings[0], embeddings[1], 0.2).mean()
    loss.backward()
    torch.testing.assert_close(output.loss, loss, rtol=1e-12, atol=0)
    for mine, expected in zip(method.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-9, atol=1e-12)


class Seen(nn.BatchNorm1d):
    """BatchNorm that notes what it was given."""

    inputs: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        self.__dict__.setdefault("inputs", []).append(x.detach())
        return super().forward(x)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_move_once_by_the_mean_of_the_parts(momentum: float | None) -> None:
    class Encoder(nn.Sequential):
        num_features = 64

        def __init__(self) -> None:
            super().__init__(nn.Flatten(), Seen(64, momentum=momentum))

    method, _ = make("simclr", Encoder)
    norm = method.encoder[1]  # type: ignore[index]
    encode_in_parts(method, PART)
    method(views_of(0), INDEX, PROGRESS)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    assert norm.num_batches_tracked == 2  # one for each view
    method(views_of(1), INDEX, PROGRESS).loss.backward()  # two more calls, and all parts again
    assert norm.num_batches_tracked == 4
    assert norm.momentum == momentum
    for call, parts in enumerate((norm.inputs[8:12], norm.inputs[12:16])):
        m = momentum or 1 / (3 + call)
        mean = (1 - m) * mean + m * sum(len(x) * x.mean(0) for x in parts) / B
        variance = (1 - m) * variance + m * sum(len(x) * x.var(0) for x in parts) / B
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


@pytest.mark.parametrize("name", ["sdclr", "dino", "byol"])
def test_a_backward_pass_moves_no_statistics(name: str) -> None:
    method, _ = make(name, lambda: resnet_small(1, 8))
    encode_in_parts(method, PART)
    output = method(views_of(0), INDEX, PROGRESS)
    before = leaves(method.state_dict())
    output.loss.backward()
    assert same((before, leaves(method.state_dict())))


def test_twins_go_in_parts_and_heads_do_not() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))  # of the very type that heads have
    encoder.num_features = 8  # type: ignore[assignment]
    method = MoCo(encoder, D, queue_size=B)
    sizes: dict[str, list[int]] = {"encoder.1": [], "projector.0": [], "twin.network.0.1": [], "twin.network.1.0": []}
    for name, seen in sizes.items():
        method.get_submodule(name).register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(len(inputs[0])))
    encode_in_parts(method, PART)
    method(views_of(0, torch.float32), INDEX, PROGRESS)
    assert sizes["encoder.1"] == [4, 3, 3, 3] * 2
    assert sizes["twin.network.0.1"] == [4, 3, 3, 3]
    assert sizes["projector.0"] == [B] * 2
    assert sizes["twin.network.1.0"] == [B]


def test_evaluation_copies_and_undoing() -> None:
    method, _ = make("simclr", lambda: resnet_small(1, 8))
    plain = copy.deepcopy(method)
    encode_in_parts(method, PART)
    view = views_of(0)[0]
    assert torch.equal(method.eval().encoder(view), plain.eval().encoder(view))
    method.train(), plain.train()
    copied = copy.deepcopy(method)
    nn.init.zeros_(next(method.encoder.parameters()))
    torch.manual_seed(0)
    assert copied.encoder(view).std(0).max() > 0, "a copy computes with its own weights"
    whole_again(copied)
    assert torch.equal(copied.encoder(view), plain.encoder(view))
    assert normalises_by_parts(method.encoder)
    assert not normalises_by_parts(WithoutBatchNorm())


# --- memory -----------------------------------------------------------------------------------------------------------


class PeakMemory(TorchDispatchMode):
    """The most bytes that results of operations held at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for result in tree_iter(results):
            if isinstance(result, Tensor):
                storage = result.untyped_storage()
                if storage._cdata not in self.held:
                    self.held[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.held.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return results


def peak_of(name: str, most: int | None) -> int:
    torch.manual_seed(0)
    encoder = resnet_small(1, width=8, stages=2, blocks=3)
    method: Method = build("method", Part(name, embedding_dim=D), encoder=encoder, num_samples=64)
    views = tuple(torch.randn(2, 64, 1, 16, 16))
    if most is not None:
        encode_in_parts(method, most)
    memory = PeakMemory()
    with memory:
        output: Output = method(views, torch.arange(64), PROGRESS)
        output.loss.backward()
    return memory.peak


@pytest.mark.parametrize("name", ["simclr", "sdclr"])
def test_the_peak_falls_with_the_parts(name: str) -> None:
    whole, halves, eighths = (peak_of(name, most) for most in (None, 32, 8))
    print(whole, halves, eighths)
    assert halves < 0.6 * whole  # of two views in turn, one half of one at a time
    assert eighths < 0.2 * whole
