"""What features say of themselves, without labels: how many directions they use, how they fill the sphere.

None of these is an accuracy. They tell collapse from health, and runs of *one* method and width from each other;
between methods they mislead. On a long tail they speak of the common classes, which most features are of.

Everything is computed in float64. Features that are NaN or infinite, or too few, raise InputError.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks
from evensphere.ops.draw import permutation

# Distances held at a time by `uniformity`: 64 MiB in float64.
_BLOCK_ENTRIES = 2**23
# Variances below this share of the largest are what rounding left of zero.
_ROUNDING = 1e-12
# Images that `signals` looks at, at most: RankMe needs many, uniformity's pairs are many already.
_RANKED, _IN_PAIRS = 25_000, 4_000


def signals(banks: Banks) -> dict[str, Any]:
    """All of them: of the train bank's features, of at most 25,000 images, uniformity of 4,000; LiDAR and alignment (of
    the first two views) of `Banks.views`."""
    assert banks.views is not None, "the engine adds the views (see SEVERAL_VIEWS)"
    features = banks.train.features
    some = features[permutation(0, "signals", 0, len(features))[:_RANKED]]
    return {
        "rank_me": rank_me(some),
        "effective_rank": effective_rank(some),
        "alpha_req": alpha_req(some),
        "lidar": lidar(banks.views),
        "uniformity": uniformity(some[:_IN_PAIRS]),
        "alignment": alignment(banks.views[:, 0], banks.views[:, 1]),
        "spread": spread(some),
        "width": features.shape[1],
    }


# How many directions --------------------------------------------------------------------------------------------------


def rank_me(features: Float[Tensor, "n d"]) -> float:
    """RankMe (Garrido et al., ICML 2023): exp of the entropy of the singular values, as shares of their sum.

    In [1, min(n, d)]; 0 if every feature is zero. The features are taken as they are, not centred, so a constant counts
    as one direction. About 25,000 images settle it in the paper; fewer than d cap it.
    """
    _check(features)
    return _diversity(torch.linalg.svdvals(features.double()))


def effective_rank(features: Float[Tensor, "n d"]) -> float:
    """exp of the entropy of the covariance's eigenvalues, as shares of their sum (Roy & Vetterli, EUSIPCO 2007).

    In [1, min(n - 1, d)]; 0 if the features do not vary. Unlike RankMe it is of variances, not of their roots, and of
    centred features: small directions count for less.
    """
    _check(features)
    return _diversity(variances(features))


def alpha_req(features: Float[Tensor, "n d"]) -> float:
    """alpha-ReQ (Agrawal et al., NeurIPS 2022): how fast the variances fall, as the exponent of a power law.

    The i-th largest eigenvalue of the covariance is taken to be proportional to i^-alpha. alpha is the slope of a
    straight line through (log i, log eigenvalue), weighted by 1 / i as in the authors' code, over all eigenvalues that
    are more than rounding. About 1 goes with good generalisation in the paper; far below, noise in many directions; far
    above, a few that hold everything. Raises InputError if the features vary in fewer than two directions.
    """
    _check(features)
    eigenvalues = variances(features)
    eigenvalues = eigenvalues[eigenvalues > _ROUNDING * eigenvalues[0]]
    if len(eigenvalues) < 2:
        raise InputError(
            f"The features vary in {len(eigenvalues)} direction(s), but a decay needs two; the encoder has collapsed."
        )
    rank = torch.arange(1, len(eigenvalues) + 1, dtype=torch.float64)
    x, y, weight = rank.log(), eigenvalues.log(), 1 / rank / (1 / rank).sum()
    x, y = x - (weight * x).sum(), y - (weight * y).sum()
    return -float((weight * x * y).sum() / (weight * x * x).sum())


def lidar(features: Float[Tensor, "n q d"], delta: float = 1e-4) -> float:
    """LiDAR (Thilak et al., ICLR 2024): the effective rank of what sets images apart, beyond what sets views apart.

    features: of q views of each of n images. Each image is a class of linear discriminant analysis:
    exp of the entropy of the eigenvalues of W^-1/2 B W^-1/2, where B is the covariance of the images' means and W that
    of views around their image's mean, plus `delta` on its diagonal (the paper's 1e-4).

    In [1, min(n - 1, d)]; 0 if all images have one mean. Needs n >= 2 images and q >= 2 views (1,000 and 50 in the
    paper). Unlike RankMe it is not raised by noise that differs from view to view.
    """
    _check(features)
    if features.shape[1] < 2:
        raise InputError(f"LiDAR was given {features.shape[1]} view of each image; give at least 2.")
    if not delta > 0:
        raise InputError(f"LiDAR's delta is {delta}; it must be greater than 0 (1e-4 is the paper's).")
    views = features.double()
    means = views.mean(1)
    between = _covariance(means - means.mean(0))
    within = _covariance((views - means[:, None]).flatten(0, 1)) + delta * torch.eye(
        views.shape[2], device=views.device
    )
    eigenvalues, vectors = torch.linalg.eigh(within)
    whitening = vectors * eigenvalues.rsqrt()
    # W^-1/2 is any root: a rotation of it leaves the eigenvalues as they are
    return _diversity(torch.linalg.eigvalsh(whitening.T @ between @ whitening).flip(0))


def variances(features: Float[Tensor, "n d"]) -> Float64[Tensor, " d"]:
    """The eigenvalues of the features' covariance (divided by n), largest first, none below 0."""
    centred = features.double() - features.double().mean(0)
    found: Tensor = torch.linalg.eigvalsh(_covariance(centred)).flip(0).clamp(min=0)
    return found


def _covariance(centred: Float64[Tensor, "n d"]) -> Float64[Tensor, "d d"]:
    covariance: Tensor = centred.T @ centred / len(centred)
    return covariance


def effective_number(shares: Float[Tensor, " k"]) -> float:
    """exp of the entropy: how many equal regions would be as diverse as these. shares: >= 0, summing to 1."""
    return float(torch.special.entr(shares.double()).sum().exp())


def _diversity(strengths: Float64[Tensor, " k"]) -> float:
    """How many equal strengths would be as diverse as these; those that are only rounding do not count."""
    strengths = torch.where(strengths > _ROUNDING * strengths[0], strengths, 0.0)
    if not strengths[0] > 0:
        return 0.0
    return effective_number(strengths / strengths.sum())


# How they fill the sphere ---------------------------------------------------------------------------------------------


def uniformity(features: Float[Tensor, "n d"], t: float = 2.0) -> float:
    """Uniformity (Wang & Isola, ICML 2020): log of the mean of exp(-t |x - y|^2) over all pairs of two images.

    The features are scaled to unit length first. From 0 (all in one point) down, to about -4 where they fill a sphere
    of many dimensions evenly at t = 2. Takes n^2 d operations: give a sample of a few thousand.
    """
    _check(features)
    unit = normalize(features.double(), dim=1)
    total = torch.zeros((), dtype=torch.float64, device=unit.device)
    for rows in torch.split(unit, max(1, _BLOCK_ENTRIES // len(unit))):
        total += (t * (2 * (rows @ unit.T) - 2)).exp().sum()
    # each image with itself is exp(0), up to the rounding of its length
    itself = (t * (2 * unit.square().sum(1) - 2)).exp().sum()
    return float(((total - itself) / (len(unit) * (len(unit) - 1))).log())


def alignment(view1: Float[Tensor, "n d"], view2: Float[Tensor, "n d"], power: float = 2.0) -> float:
    """Alignment (Wang & Isola, ICML 2020): the mean distance of two views of an image, to the `power`.

    view1, view2: features of the same images, scaled to unit length first. From 0 (no view matters) to 2^power.
    """
    _check(view1)
    _check(view2)
    distance = (normalize(view1.double(), dim=1) - normalize(view2.double(), dim=1)).norm(dim=1)
    return float(distance.pow(power).mean())


def spread(features: Float[Tensor, "n d"]) -> float:
    """How far the features are from one point (Chen & He, CVPR 2021, section 4.1): the standard deviation of each
    coordinate of the features scaled to unit length, averaged, times the root of d.

    From 0 (collapsed) to 1 (each coordinate centred and as wide as the others).
    """
    _check(features)
    unit = normalize(features.double(), dim=1)
    return float(unit.std(0, correction=0).mean() * unit.shape[1] ** 0.5)


def _check(features: Tensor) -> None:
    if len(features) < 2:
        raise InputError(f"Features of {len(features)} image(s) were given; give those of at least 2.")
    if not bool(features.isfinite().all()):
        raise InputError(
            "The features are NaN or infinite; the encoder has probably diverged, so use an earlier checkpoint."
        )
