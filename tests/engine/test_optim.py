"""Optimisers against their equations, written out tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn

from evensphere.engine.optim import adamw, lars, sgd
from evensphere.errors import InputError

Make = Callable[..., torch.optim.Optimizer]


def network() -> nn.Sequential:
    """Weights of two and four dimensions, biases, a norm, and a weight that is zero."""
    torch.manual_seed(0)
    last = nn.Linear(5, 3)
    nn.init.zeros_(last.weight)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5), last).double()


def gradients(net: nn.Module, step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    drawn = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in net.parameters()]
    if step == 2:
        drawn[0].zero_()  # |g| = 0
    return drawn


def steps(optimizer: torch.optim.Optimizer, net: nn.Module, rates: Iterable[float], first: int = 0) -> list[Tensor]:
    """The parameters after one step at each rate."""
    for step, rate in enumerate(rates, start=first):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for parameter, gradient in zip(net.parameters(), gradients(net, step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def lars_by_hand(rates: list[float], momentum: float, decay: float, trust: float, rate_inside: bool) -> list[Tensor]:
    """You et al., algorithm 1, one tensor after the other; the common variant has the rate outside the velocity."""
    net = network()
    results = []
    for number, parameter in enumerate(net.parameters()):
        w, v = parameter.detach().clone(), torch.zeros_like(parameter)
        for step, rate in enumerate(rates):
            g = gradients(net, step)[number]
            if w.ndim > 1:
                norm_w, norm_g = float(w.square().sum()) ** 0.5, float(g.square().sum()) ** 0.5
                local = trust * norm_w / (norm_g + decay * norm_w) if norm_w > 0 and norm_g > 0 else 1.0
                update = local * (g + decay * w)
            else:
                update = g
            v = momentum * v + (rate if rate_inside else 1.0) * update
            w = w - (v if rate_inside else rate * v)
        results.append(w)
    return results


@pytest.mark.parametrize(("decay", "trust"), [(1e-2, 1e-3), (0.0, 1e-3), (0.3, 0.02)])
def test_lars_is_its_equation(decay: float, trust: float) -> None:
    rates = [0.1, 0.4, 0.3, 0.3, 0.05]
    net = network()
    ours = steps(lars(net.parameters(), 0.9, decay, trust), net, rates)
    for w, expected in zip(ours, lars_by_hand(rates, 0.9, decay, trust, rate_inside=False), strict=True):
        torch.testing.assert_close(w, expected, rtol=1e-6, atol=1e-9)  # timm adds 1e-8 to |g|


def test_at_a_constant_rate_lars_is_the_papers_algorithm() -> None:
    net, rates = network(), [0.4] * 5
    ours = steps(lars(net.parameters(), 0.9, 0.01), net, rates)
    for w, expected in zip(ours, lars_by_hand(rates, 0.9, 0.01, 0.001, rate_inside=True), strict=True):
        torch.testing.assert_close(w, expected, rtol=1e-6, atol=1e-9)


def test_adamw_decays_weights_alone() -> None:
    """Against torch's AdamW on each kind of parameter by itself."""
    rates = [1e-2, 3e-2, 1e-2]
    net = network()
    ours = steps(adamw(net.parameters(), (0.8, 0.95), 0.5), net, rates)
    for kind, decay in ((True, 0.5), (False, 0.0)):
        plain = network()
        theirs = steps(torch.optim.AdamW(plain.parameters(), betas=(0.8, 0.95), weight_decay=decay), plain, rates)
        picked = [i for i, p in enumerate(theirs) if (p.ndim > 1) == kind]
        assert len(picked) == (3 if kind else 5)
        for i in picked:  # theirs in three passes, ours in one
            torch.testing.assert_close(ours[i], theirs[i], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("make", [sgd, lars, adamw])
def test_a_parameter_may_get_its_first_gradient_later_than_others(make: Make) -> None:
    """As prototypes that are frozen for an epoch do."""
    late, always = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = make([always, late], weight_decay=0.0)
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 0.1
        always.grad = torch.ones_like(always)
        late.grad = torch.ones_like(late) if step else None
        optimizer.step()
        assert torch.equal(late, torch.ones(2, 2)) == (step == 0)


def test_sgd_decays_everything_as_the_papers_protocol() -> None:
    assert [group["weight_decay"] for group in sgd(network().parameters(), weight_decay=0.1).param_groups] == [0.1]


@pytest.mark.parametrize("make", [sgd, lars, adamw])
def test_an_optimiser_goes_on_from_its_state(make: Make) -> None:
    net = network()
    unbroken = steps(make(net.parameters()), net, [0.1] * 6)
    net = network()
    first = make(net.parameters())
    steps(first, net, [0.1] * 3)
    second = make(net.parameters())
    second.load_state_dict(first.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(unbroken, steps(second, net, [0.1] * 3, first=3), strict=True))


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (sgd, {"momentum": 1.0}, "momentum = 1.0"),
        (sgd, {"weight_decay": -1.0}, "weight_decay = -1.0"),
        (lars, {"momentum": -0.1}, "momentum"),
        (lars, {"weight_decay": float("nan")}, "weight_decay"),
        (lars, {"trust_coefficient": 0.0}, "trust_coefficient = 0.0"),
        (adamw, {"weight_decay": -1.0}, "weight_decay"),
        (adamw, {"betas": (0.9, 1.0)}, "second beta = 1.0"),
        (adamw, {"betas": (0.9,)}, "two numbers"),
    ],
)
def test_values_out_of_range_are_refused(make: Make, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make(network().parameters(), **options)
