"""The geometric uniform structure: K directions in R^D as far from each other as they can be (paper, section 3.2).

    K <= D+1   a simplex: every pair at cosine -1/(K-1), which no set of K directions can beat (Rankin 1955).
    K <= 2D    for K > D+1 no set has all its cosines below 0 (Rankin), and 0 is attained by simplices in orthogonal
               subspaces, down to the signed axes at K = 2D.
    beyond     the largest cosine is minimised numerically.

The first two are closed forms. All are turned in a random direction, so that no anchor lies along an axis of the
projector's output.

Beyond 2D the optimum is unknown but for a few K and D. What no set can beat: Levenshtein (1979), which is closest for K
a few times D,

    K <= D (1 - s)(2 + (D+1) s) / (1 - D s^2)        for a largest cosine 0 <= s <= (sqrt(D+3) - 1) / (D+2)

and for a set that holds the opposite of each of its directions, L = K/2 lines, Welch (1974), sqrt((L-D) / (D (L-1))),
and 1/sqrt(D) once L > D(D+1)/2 (the orthoplex bound), which the 24 directions found for D = 4 attain.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.ops.draw import seed_for
from evensphere.values import check_memory, check_whole

_MOST = 2**16  # takes minutes already
_STEPS = 600
_SHARPNESS = (10.0, 5000.0)  # of the soft maximum over cosines: first smooth, at the end close to the maximum itself
_STEP_SIZES = (0.05, 0.0001)
_WORK = 2**19  # per step, in the units of `_work`: a few milliseconds
_DESCENTS = 20  # at most, from different starts


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
    check_whole("anchors", num_anchors, 2, _MOST)
    check_memory(f"{num_anchors:,} anchors of width {dim:,}", _bytes_needed(num_anchors, dim))
    generator = torch.Generator().manual_seed(seed_for(seed, "anchors"))
    if num_anchors <= max(2 * dim, dim + 1):
        anchors = _orthogonal_simplices(num_anchors, dim)
    else:
        anchors = _least_largest_cosine(num_anchors, dim, generator)
    return (anchors @ _directions(anchors.shape[1], dim, generator)).float()


def _bytes_needed(num_anchors: int, dim: int) -> float:
    """At the least: the anchors, and in the closed form a matrix of their number, else the cosines of their orbits."""
    if num_anchors <= max(2 * dim, dim + 1):
        return 8.0 * num_anchors * (dim + num_anchors)
    return 8.0 * num_anchors * dim + 4.0 * num_anchors**2 / dim


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
    """The best of several descents, as many as are cheap.

    A large set is made of orbits: the width is cut into n blocks, and a group of n sign patterns (the rows of a
    Hadamard matrix) turns each of K/n points into n of them. That costs n^2 times less, and the sets are as good: the
    largest cosine of 1000 directions in 128 dimensions lies between 0.0729 and 0.0738 for every n from 1 to 16.
    A small set is also tried as pairs of opposite directions, as the best sets known often are.
    """
    blocks = 1
    while _work(num_anchors, dim, blocks) > _WORK and 2 * blocks <= dim:
        blocks *= 2
    signs = _sign_patterns(blocks)
    descents = min(_DESCENTS, max(1, _WORK // _work(num_anchors, dim, blocks)))
    found = [_descend(num_anchors, dim, signs, descents, generator)]
    if num_anchors % 2 == 0 and descents > 1:
        found.append(_descend(num_anchors, dim, torch.cat([signs, -signs]), descents, generator))
    return min(found, key=largest_cosine)


def _work(num_anchors: int, dim: int, blocks: int) -> int:
    """What a step costs: cosines between orbits, each with an exponential, and the products behind them."""
    orbits = math.ceil(num_anchors / blocks)
    return orbits**2 * (blocks + dim // 64)


def _sign_patterns(count: int) -> Float32[Tensor, "{count} {count}"]:
    """A Hadamard matrix of 2^i rows, the first all ones; its rows form a group under multiplication."""
    signs = torch.ones(1, 1)
    while len(signs) < count:
        signs = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), signs)
    return signs


def _descend(
    num_anchors: int, dim: int, signs: Float32[Tensor, "group blocks"], descents: int, generator: torch.Generator
) -> Float64[Tensor, "k d"]:
    """Gradient descent on the sphere: the log-sum-exp of the cosines, sharpened step by step into their maximum.

    signs: a group of sign patterns over blocks of the width, the identity first. Of each orbit one point is moved; the
    others are that point, block by block, with the signs changed. Gives the best of the descents.
    """
    blocks, orbits = signs.shape[1], math.ceil(num_anchors / len(signs))
    used = torch.arange(math.ceil(dim / blocks)) * blocks + torch.arange(blocks).unsqueeze(1) < dim  # [blocks, width]
    points = torch.randn(descents, blocks, orbits, used.shape[1], generator=generator) * used.unsqueeze(1)
    _to_unit_length(points)
    optimizer = torch.optim.Adam([points])
    for step in range(_STEPS):
        share = step / (_STEPS - 1)
        optimizer.param_groups[0]["lr"] = _between(_STEP_SIZES, share)
        cosines = _orbit_cosines(points, signs)
        closest = cosines.amax((1, 2, 3), keepdim=True)
        pull = cosines.sub_(closest).mul_(_between(_SHARPNESS, share)).exp_()
        pull /= pull.sum((1, 2, 3), keepdim=True)
        gradient = (signs.T @ pull.flatten(2)).unflatten(2, (orbits, orbits)) @ points
        points.grad = gradient - (gradient * points).sum((1, 3), keepdim=True) * points
        optimizer.step()
        _to_unit_length(points)
    best = points[_orbit_cosines(points, signs).amax((1, 2, 3)).argmin()].double()
    everyone = (signs.double()[:, None, :, None] * best.movedim(1, 0))[..., used]  # [group, orbits, dim]
    return normalize(everyone.flatten(0, 1)[:num_anchors], dim=1)


def _orbit_cosines(
    points: Float32[Tensor, "descents blocks orbits width"], signs: Float32[Tensor, "group blocks"]
) -> Float32[Tensor, "descents group orbits orbits"]:
    """Between each point and all members of all orbits but itself."""
    products = points @ points.transpose(-1, -2)
    cosines: Tensor = (signs @ products.flatten(2)).unflatten(2, products.shape[2:])
    cosines[:, 0].diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    return cosines


def _to_unit_length(points: Float32[Tensor, "descents blocks orbits width"]) -> None:
    points /= torch.linalg.vector_norm(points, dim=(1, 3), keepdim=True)


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
