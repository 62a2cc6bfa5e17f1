"""Adaptive SAM against its equation written out, and what rwSAM takes for rare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int64
from lightning_fabric import Fabric
from sklearn.neighbors import KernelDensity
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource
from evensphere.engine import train as engine
from evensphere.engine.sam import AdaptiveSAM, asam, density_weights, rwsam
from evensphere.engine.train import StepModule, Training
from evensphere.errors import InputError
from evensphere.gh.harmonizer import NoHarmonizer
from evensphere.methods.base import Method, Output
from evensphere.ops.schedule import Duration, Progress

RHO, MOMENTUM, DECAY, RATE = 0.3, 0.9, 0.1, 0.05


class Regression(Method):
    """The loss of an image with the mean pixel x is ((a x + b)^2 - 1)^2 + d a^2; dropout draws d of 0 or 2."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Identity()
        self.a, self.b = nn.Parameter(torch.tensor([0.7])), nn.Parameter(torch.tensor([-0.3]))
        self.dropout = nn.Dropout(0.5)
        self.seen: list[tuple[float, list[float], float]] = []
        self.after: list[Output] = []

    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        x = views[0].mean((1, 2, 3))
        dropped = self.dropout(torch.ones(1))
        per_sample = ((self.a * x + self.b) ** 2 - 1) ** 2 + dropped * self.a**2
        self.seen.append((self.a.item(), x.tolist(), dropped.item()))
        return Output(per_sample.mean(), (views[0].flatten(1),) * 2, {}, per_sample)

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        self.after.append(output)


def training_with(optimizer: str, weights: Tensor | None) -> Training:
    method = Regression().double()
    views = Views(4, jitter=(0.5, 0.0, 0.0, 0.0), gray=0.0, mean=(0.0,), std=(1.0,))
    pixels = torch.randint(0, 256, (6, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"lr": 0.0, "momentum": MOMENTUM, "weight_decay": DECAY}
    parameters = [method.a, method.b]
    made = torch.optim.SGD(parameters, **options) if optimizer == "sgd" else None
    return Training(
        loader=Loader(ArraySource("squares", pixels), 3, views, seed=0),
        views=views,
        method=method,
        harmonizer=NoHarmonizer(),
        optimizer=made or AdaptiveSAM(parameters, RHO, weights, **options),
        learning_rate=lambda epoch: RATE,
        epochs=2,
        seed=0,
        evaluate_every=Duration.parse("1 epoch"),
        checkpoint_every=Duration.parse("1 epoch"),
    )


def run(training: Training) -> list[dict[str, Any]]:
    fabric = Fabric(accelerator="cpu", devices=1, precision="64-true")
    module, training.optimizer = fabric.setup(StepModule(training.method, training.harmonizer), training.optimizer)
    batches = training.loader.batches(0, 4)
    return [engine._take_step(training, module, batch, training.progress(step), fabric) for step, batch in batches]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_engines_steps_are_the_equation(weighted: bool) -> None:
    """Four steps by hand: the gradient from autograd on two numbers, everything else written out."""
    weights = torch.tensor([3.0, 0.5, 0.5, 0.5, 1.0, 0.5]) if weighted else None
    training = training_with("asam", weights)
    records = run(training)
    method = training.method
    assert isinstance(method, Regression)
    assert len(method.seen) == 8, "two passes a step"
    assert len(method.after) == 4, "and one step"
    w, velocity = torch.tensor([0.7, -0.3]).tolist(), [0.0, 0.0]
    for step in range(4):
        (_, x, dropped), (_, x_again, dropped_again) = method.seen[2 * step : 2 * step + 2]
        assert (x, dropped) == (x_again, dropped_again), "the same views, the same dropout"
        index = training.loader.index(step)
        g = gradient(w, x, dropped, [1.0] * 3 if weights is None else weights[index].tolist())
        norm = sum((abs(w[i]) * g[i]) ** 2 for i in range(2)) ** 0.5
        top = [w[i] + RHO * w[i] ** 2 * g[i] / norm for i in range(2)]
        assert method.seen[2 * step + 1][0] == pytest.approx(top[0], rel=1e-6)
        assert records[step]["loss"].item() == pytest.approx(loss(top, x, dropped), rel=1e-6)
        assert method.after[step].loss.item() == records[step]["loss"].item()
        g = gradient(top, x, dropped, [1.0] * 3)
        velocity = [MOMENTUM * velocity[i] + g[i] + DECAY * w[i] for i in range(2)]
        w = [w[i] - RATE * velocity[i] for i in range(2)]
    assert [method.a.item(), method.b.item()] == pytest.approx(w, rel=1e-6)


def loss(w: list[float], x: list[float], dropped: float) -> float:
    return sum(((w[0] * y + w[1]) ** 2 - 1) ** 2 + dropped * w[0] ** 2 for y in x) / 3


def gradient(w: list[float], x: list[float], dropped: float, counts: list[float]) -> list[float]:
    outer = [4 * ((w[0] * y + w[1]) ** 2 - 1) * (w[0] * y + w[1]) for y in x]
    a = sum(n * (o * y + 2 * dropped * w[0]) for n, o, y in zip(counts, outer, x, strict=True)) / 3
    return [a, sum(n * o for n, o in zip(counts, outer, strict=True)) / 3]


def test_other_optimisers_pass_once_a_step() -> None:
    training = training_with("sgd", None)
    run(training)
    assert isinstance(training.method, Regression)
    assert len(training.method.seen) == len(training.method.after) == 4


def test_where_the_gradient_is_zero_nothing_is_climbed() -> None:
    w = nn.Parameter(torch.tensor([2.0]))
    optimizer = asam([w])
    assert isinstance(optimizer, AdaptiveSAM)
    seen = []

    def closure(weights: Tensor | None = None) -> None:
        seen.append(w.item())
        (0 * w).sum().backward()

    optimizer.step(closure)
    assert seen == [2.0, 2.0]
    assert w.item() == 2.0


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bandwidth", "power"), [(0.1, 0.5), (0.5, 1.0), (1.0, 2.0)])
def test_weights_are_powers_of_scikit_learns_density(bandwidth: float, power: float) -> None:
    features = torch.randn(1500, 5, generator=torch.Generator().manual_seed(0))
    unit = normalize(features, dim=1).double().numpy()
    density = torch.from_numpy(KernelDensity(bandwidth=bandwidth).fit(unit).score_samples(unit)).exp()
    expected = density**-power / (density**-power).mean()
    torch.testing.assert_close(density_weights(features, bandwidth, power).double(), expected, rtol=2e-4, atol=1e-6)


def test_rare_rows_weigh_more_but_never_without_bound() -> None:
    common, rare = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    features = torch.cat([common.expand(99, 2) * torch.linspace(0.1, 9, 99)[:, None], rare])
    weights = density_weights(features, 0.05, 1.0)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[99] / weights[0]).item() == pytest.approx(99, rel=1e-4)
    assert torch.allclose(density_weights(features, 0.05, 0.0), torch.ones(100))


@pytest.mark.parametrize("options", [{"rho": 0.0}, {"bandwidth": 0.0}, {"power": -1.0}, {"momentum": 1.0}])
def test_values_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        rwsam([nn.Parameter(torch.ones(1))], lambda run: torch.eye(3), "run", **options)
