"""Label-free signals against slow loops, and where their values are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.metrics.signals import (
    alignment,
    alpha_req,
    effective_number,
    effective_rank,
    lidar,
    rank_me,
    spread,
    uniformity,
    variances,
)

SIGNALS = [rank_me, effective_rank, alpha_req, uniformity, spread]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_variances(wanted: list[float], n: int = 200) -> Tensor:
    """Features whose covariance has exactly these eigenvalues, in a basis that is not the coordinates'."""
    d = len(wanted)
    raw = draw(n, d).double()
    whitened = torch.linalg.qr(raw - raw.mean(0)).Q * n**0.5  # the columns of Q are still centred
    turned: Tensor = torch.linalg.qr(draw(d, d, seed=1).double()).Q
    features: Tensor = whitened * torch.tensor(wanted, dtype=torch.float64).sqrt() @ turned
    return features


def test_rank_me_is_exp_of_the_entropy_of_singular_values() -> None:
    features = draw(40, 12) * torch.linspace(0.1, 2, 12)
    singular = np.linalg.svd(features.numpy().astype(np.float64), compute_uv=False)
    shares = singular / singular.sum()
    assert rank_me(features) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


@pytest.mark.parametrize("directions", [1, 3, 8])
def test_equal_directions_are_counted(directions: int) -> None:
    features = with_variances([1.0] * directions + [0.0] * (8 - directions))
    assert rank_me(features) == pytest.approx(directions)
    assert effective_rank(features) == pytest.approx(directions)


def test_effective_rank_is_of_variances_and_ignores_the_mean() -> None:
    wanted = [5.0, 2.0, 1.0, 0.5]
    features = with_variances(wanted)
    shares = np.array(wanted) / sum(wanted)
    expected = math.exp(-(shares * np.log(shares)).sum())
    assert effective_rank(features) == pytest.approx(expected)
    assert effective_rank(features + 100) == pytest.approx(expected)
    assert variances(features).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 2.0])
def test_alpha_req_finds_the_power_law(alpha: float) -> None:
    assert alpha_req(with_variances([i**-alpha for i in range(1, 31)])) == pytest.approx(alpha, abs=1e-6)


def test_alpha_req_weighs_by_one_over_the_rank() -> None:
    wanted = [4.0, 3.0, 0.5, 0.4, 0.01]
    ranks = np.arange(1, 6)
    slope = np.polyfit(np.log(ranks), np.log(wanted), 1, w=np.sqrt(1 / ranks))[0]
    assert alpha_req(with_variances(wanted)) == pytest.approx(-slope)


def slow_lidar(views: np.ndarray, delta: float) -> float:
    n, q, d = views.shape
    mean = views.mean((0, 1))
    between, within = np.zeros((d, d)), delta * np.eye(d)
    for image in views:
        between += np.outer(image.mean(0) - mean, image.mean(0) - mean) / n
        for view in image:
            within += np.outer(view - image.mean(0), view - image.mean(0)) / (n * q)
    eigenvalues = np.linalg.eigvals(np.linalg.inv(within) @ between).real  # similar to W^-1/2 B W^-1/2
    shares = eigenvalues / eigenvalues.sum()
    return math.exp(-sum(p * math.log(p) for p in shares if p > 1e-12))


def test_lidar_against_a_slow_loop() -> None:
    views = draw(20, 1, 6) * torch.linspace(0.2, 3, 6) + 0.5 * draw(20, 4, 6, seed=1)
    assert lidar(views) == pytest.approx(slow_lidar(views.numpy().astype(np.float64), 1e-4))
    assert lidar(views, delta=0.3) == pytest.approx(slow_lidar(views.numpy().astype(np.float64), 0.3))


def test_lidar_is_not_raised_by_noise_of_views() -> None:
    images = torch.zeros(200, 1, 20)
    images[..., :5] = draw(200, 1, 5)
    noise = torch.zeros(200, 10, 20)
    noise[..., 5:] = draw(200, 10, 15, seed=1)
    clean, noisy = images.expand(-1, 10, -1), images + noise
    assert lidar(clean) == pytest.approx(5, abs=0.2)
    assert lidar(noisy) == pytest.approx(5, abs=0.2)
    assert rank_me(noisy.flatten(0, 1)) > 15


def test_uniformity_and_alignment_are_means_over_pairs() -> None:
    one, two = draw(15, 4), draw(15, 4, seed=1)
    a, b = (np.array(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in (one.numpy(), two.numpy()))
    pairs = [math.exp(-2 * ((a[i] - a[j]) ** 2).sum()) for i in range(15) for j in range(i)]
    assert uniformity(one) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    assert alignment(one, two) == pytest.approx(float(((a - b) ** 2).sum(1).mean()), rel=1e-5)
    assert alignment(one, two, power=1) == pytest.approx(float(np.linalg.norm(a - b, axis=1).mean()), rel=1e-5)


def test_uniformity_in_blocks_is_uniformity(monkeypatch: pytest.MonkeyPatch) -> None:
    features = draw(50, 3)
    whole = uniformity(features)
    monkeypatch.setattr("evensphere.metrics.signals._BLOCK_ENTRIES", 120)
    assert uniformity(features) == pytest.approx(whole, rel=1e-12)


def test_opposite_points() -> None:
    poles = torch.tensor([[1.0, 0.0], [-3.0, 0.0]])
    assert uniformity(poles) == pytest.approx(-8)
    assert alignment(poles, -poles) == pytest.approx(4)
    assert alignment(poles, 2 * poles) == pytest.approx(0)


def test_spread_of_the_sphere_is_one() -> None:
    assert spread(torch.cat([torch.eye(6), -torch.eye(6)])) == pytest.approx(1)
    assert spread(torch.eye(6) + 1000) == pytest.approx(0, abs=1e-2)


def test_constant_features_have_a_value() -> None:
    constant = torch.full((30, 5), 0.3)
    assert rank_me(constant) == pytest.approx(1)
    assert effective_rank(constant) == 0
    assert uniformity(constant) == pytest.approx(0, abs=1e-12)
    assert alignment(constant, constant) == 0
    assert spread(constant) == pytest.approx(0, abs=1e-7)
    assert lidar(torch.full((10, 3, 5), 0.3)) == 0
    assert rank_me(torch.zeros(30, 5)) == 0
    with pytest.raises(InputError, match="collapsed"):
        alpha_req(constant)


@pytest.mark.parametrize("signal", [*SIGNALS, lambda x: alignment(x, x), lambda x: lidar(x[:, None].expand(-1, 2, -1))])
def test_nan_and_too_few_are_refused(signal: Callable[[Tensor], float]) -> None:
    with pytest.raises(InputError, match="diverged"):
        signal(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))
    with pytest.raises(InputError, match="at least 2"):
        signal(torch.ones(1, 4))


def test_lidar_refuses_one_view_and_no_delta() -> None:
    with pytest.raises(InputError, match="1 view of each image"):
        lidar(draw(5, 1, 3))
    with pytest.raises(InputError, match="delta"):
        lidar(draw(5, 2, 3), delta=0.0)


def test_the_effective_number_counts_equal_shares() -> None:
    assert effective_number(torch.full((7,), 1 / 7)) == pytest.approx(7, rel=1e-5)
    assert effective_number(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert 2 < effective_number(torch.tensor([0.6, 0.2, 0.2])) < 3
