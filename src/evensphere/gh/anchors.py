"""The geometric uniform structure: K directions in R^D as far from each other as they can be (paper, section 3.2).

    K <= D+1   a simplex: every pair at cosine -1/(K-1), which no set of K directions can beat.
    K <= 2D    for K > D+1 no set has all its cosines below 0 (Rankin 1955), and 0 is attained by simplices in
               orthogonal subspaces, down to the signed axes at K = 2D.
    beyond     the largest cosine is minimised numerically.

The first two are closed forms. All are turned in a random direction, so that no anchor lies along an axis of the
projector's output.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops.draw import seed_for

_STEPS = 400
_SHARPNESS = (10.0, 400.0)  # of the soft maximum over cosines: first smooth, at the end close to the maximum itself
_STEP_SIZES = (0.05, 0.0005)


def geometric_uniform(num_anchors: int, dim: int, seed: int = 0) -> Float32[Tensor, "{num_anchors} {dim}"]:
    """K unit vectors in R^D, float32, the same for the same seed.

    num_anchors: K >= 2. dim: D >= 1. Raises InputError outside these.

    >>> anchors = geometric_uniform(3, 8)
    >>> (anchors @ anchors.T).round(decimals=3).abs()
    tensor([[1.0000, 0.5000, 0.5000],
            [0.5000, 1.0000, 0.5000],
            [0.5000, 0.5000, 1.0000]])
    """
    if num_anchors < 2:
        raise InputError(f"{num_anchors} anchors were given; harmonization needs at least 2 (the paper: 100).")
    if dim < 1:
        raise InputError(f"Anchors of width {dim} were asked for; the embedding width must be at least 1.")
    generator = torch.Generator().manual_seed(seed_for(seed, "anchors"))
    if num_anchors <= max(2 * dim, dim + 1):
        anchors = _orthogonal_simplices(num_anchors, dim)
    else:
        anchors = _least_largest_cosine(num_anchors, dim, generator)
    return (anchors @ _directions(anchors.shape[1], dim, generator)).float()


def _orthogonal_simplices(num_anchors: int, dim: int) -> Float64[Tensor, "k used"]:
    """The closed form: one simplex if it fits, else the fewest simplices in subspaces that share out the width.

    Only as wide as it has to be: K-1 for one simplex, else D.
    """
    subspaces = max(1, num_anchors - dim)  # a simplex of n vectors needs n-1 dimensions: K = D + number of subspaces
    anchors = torch.zeros(num_anchors, num_anchors - subspaces, dtype=torch.float64)
    row = column = 0
    for part in range(subspaces):
        rows = num_anchors // subspaces + (part < num_anchors % subspaces)
        anchors[row : row + rows, column : column + rows - 1] = _simplex(rows)
        row, column = row + rows, column + rows - 1
    return anchors


def _simplex(count: int) -> Float64[Tensor, "k k-1"]:
    """`count` unit vectors of pairwise cosine -1/(count-1): sqrt(K/(K-1)) B, with B an orthonormal basis of the space
    orthogonal to the ones vector."""
    ones_first = torch.eye(count, dtype=torch.float64)
    ones_first[:, 0] = 1
    simplex: Tensor = (count / (count - 1)) ** 0.5 * torch.linalg.qr(ones_first).Q[:, 1:]
    return simplex


def _least_largest_cosine(num_anchors: int, dim: int, generator: torch.Generator) -> Float64[Tensor, "k d"]:
    """Gradient descent on the sphere: the log-sum-exp of the cosines, sharpened step by step into their maximum."""
    points = torch.randn(num_anchors, dim, dtype=torch.float64, generator=generator)
    points = normalize(points, dim=1).requires_grad_()
    optimizer = torch.optim.Adam([points])
    for step in range(_STEPS):
        share = step / (_STEPS - 1)
        optimizer.param_groups[0]["lr"] = _between(_STEP_SIZES, share)
        unit = normalize(points, dim=1)
        cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
        sharpness = _between(_SHARPNESS, share)
        loss = torch.logsumexp(sharpness * cosines.flatten(), 0) / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return normalize(points.detach(), dim=1)


def _between(ends: tuple[float, float], share: float) -> float:
    """Geometric interpolation."""
    return float(ends[0] * (ends[1] / ends[0]) ** share)


def _directions(count: int, dim: int, generator: torch.Generator) -> Float64[Tensor, "{count} {dim}"]:
    """Random orthonormal rows, all choices equally likely: the Q of a Gaussian matrix, with R's diagonal made positive.

    `dim` of them are a rotation or reflection. Fewer cost dim * count^2 and not dim^3, which for a width of 8192 is a
    second instead of minutes.
    """
    q, r = torch.linalg.qr(torch.randn(dim, count, dtype=torch.float64, generator=generator))
    directions: Tensor = (q * r.diagonal().sign()).T
    return directions


def largest_cosine(anchors: Float[Tensor, "k d"]) -> float:
    """How close the closest pair of anchors is."""
    return float((anchors @ anchors.T).fill_diagonal_(-torch.inf).max())
