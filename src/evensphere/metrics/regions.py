"""How unequal the regions are that a grouping without labels divides the images into.

A region is no class. Its size says how many images lie where it is, and how unequal sizes are says how skewed the data
is only as far as regions hold classes; docs/results.md has how far that was on labelled data.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Real
from scipy import optimize
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.ops.draw import seed_for

RESAMPLES = 200
_Z = 1.959964  # of a 95 % interval
_LARGEST_IMBALANCE = 1e6


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def gini(sizes: Real[Tensor, "*batch k"]) -> Float64[Tensor, "*batch"]:
    """Gini coefficient of sizes >= 0: 0 if all are equal, (k - 1) / k if one has everything; 0 for no images."""
    sorted_sizes = sizes.double().sort(dim=-1).values
    k = sizes.shape[-1]
    rank = torch.arange(1, k + 1, dtype=torch.float64, device=sizes.device)
    total = sorted_sizes.sum(-1)
    found = (2 * (rank * sorted_sizes).sum(-1) / total.clamp(min=1e-300) - (k + 1)) / k
    return torch.where(total > 0, found, 0.0)


def exponential_imbalance(coefficient: float) -> float:
    """The imbalance (largest class over smallest) of an exponential profile with this Gini coefficient, for many
    classes: 1 for 0, 10 for 0.35, 100 for 0.59. What no such profile reaches (0.86 and more) is answered with 1e6.
    """
    if coefficient <= 0:
        return 1.0
    if coefficient >= _gini_of(_LARGEST_IMBALANCE):
        return _LARGEST_IMBALANCE
    log_ratio = optimize.brentq(lambda x: _gini_of(math.exp(x)) - coefficient, 1e-6, math.log(_LARGEST_IMBALANCE))
    return math.exp(log_ratio)


def _gini_of(imbalance: float) -> float:
    """1 - 2 (area below the Lorenz curve) of sizes imbalance^x, x even in [0, 1]."""
    x = math.log(imbalance)
    return x / 6 if x < 1e-3 else 1 - 2 / x + 2 / math.expm1(x)


def share_intervals(counts: Int64[Tensor, " k"]) -> Float32[Tensor, "k 2"]:
    """95 % interval of each region's share of the images (Wilson, 1927): what images drawn anew would change. counts:
    with at least one image in all."""
    n = counts.sum().double()
    share = counts.double() / n
    middle = share + _Z**2 / (2 * n)
    margin = _Z * (share * (1 - share) / n + _Z**2 / (4 * n**2)).sqrt()
    interval = torch.stack([middle - margin, middle + margin], dim=1) / (1 + _Z**2 / n)
    return interval.clamp(0, 1).float()


def region_skew(counts: Int64[Tensor, " k"], seed: int = 0) -> Estimate:
    """Gini coefficient of the sizes of regions; the interval is what images drawn anew would change.

    counts: images in each region, at least one in all.

    Chance makes equal regions look unequal: near 0 it adds to the square of the coefficient, and images resampled from
    the sample (bootstrap) are as far above the sample in that as the sample is above the truth. That is taken off.
    """
    sample = float(gini(counts)) ** 2
    generator = np.random.default_rng(seed_for(seed, "region skew"))
    drawn = generator.multinomial(int(counts.sum()), (counts.double() / counts.sum()).numpy(), size=RESAMPLES)
    resampled = gini(torch.from_numpy(drawn)).square()
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(*(max(0.0, 2 * sample - one) ** 0.5 for one in (float(resampled.mean()), high, low)))


def structureless(features: Float[Tensor, "n d"], seed: int = 0) -> Float[Tensor, "n d"]:
    """As many points without any groups: Gaussian, with the mean and covariance of the features scaled to unit length.
    What regions of these are unequal by is not skew but the shape of the cloud."""
    points = normalize(features.double(), dim=1)
    centre = points.mean(0)
    strength, direction = torch.linalg.eigh((points - centre).T @ (points - centre) / len(points))
    generator = torch.Generator().manual_seed(seed_for(seed, "structureless"))
    drawn = torch.randn(points.shape, dtype=torch.float64, generator=generator) * strength.clamp(min=0).sqrt()
    cloud: Tensor = centre + drawn @ direction.T
    return cloud.float()
