"""Barlow Twins: the loss against a loop written from the paper and against Lightly, and who gets gradient."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.barlow import BarlowTwins, barlow_terms
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 1)
SIZES = [(4, 3), (16, 5), (9, 20)]


def make(**options: float | int) -> BarlowTwins:
    torch.manual_seed(0)
    return BarlowTwins(resnet_small(1, width=4, stages=2), embedding_dim=8, **options)  # type: ignore[arg-type]


def embeddings(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two views that have something in common, with means and spreads far from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    common, a, b = torch.randn(3, *size, dtype=torch.float64, generator=generator)
    return 3 * (common + 0.5 * a) + 2, 0.7 * (common + 0.5 * b) - 1


def reference(z1: Tensor, z2: Tensor) -> tuple[float, float]:
    """Equations 1 and 2 of the paper, number by number; the spread has BatchNorm's 1e-5 in it, as in the code."""
    count, dim = z1.shape
    standardised = []
    for z in (z1.tolist(), z2.tolist()):
        columns = []
        for j in range(dim):
            column = [row[j] for row in z]
            mean = sum(column) / count
            spread = math.sqrt(sum((x - mean) ** 2 for x in column) / count + 1e-5)
            columns.append([(x - mean) / spread for x in column])
        standardised.append(columns)
    invariance = redundancy = 0.0
    for i in range(dim):
        for j in range(dim):
            c = sum(standardised[0][i][b] * standardised[1][j][b] for b in range(count)) / count
            if i == j:
                invariance += (1 - c) ** 2
            else:
                redundancy += c**2
    return invariance, redundancy


@pytest.mark.parametrize("size", SIZES)
def test_the_terms_equal_the_papers(size: tuple[int, int]) -> None:
    z1, z2 = embeddings(size)
    terms = barlow_terms(z1, z2)
    assert [term.item() for term in terms] == pytest.approx(reference(z1, z2), rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_the_loss_equals_lightlys(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of when it is imported is not ours
        lightly = pytest.importorskip("lightly.loss")
    z1, z2 = embeddings(size)
    terms = barlow_terms(z1, z2)
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.01)(z1, z2)
    assert torch.allclose(terms.invariance + 0.01 * terms.redundancy, theirs, rtol=1e-10)


def test_identical_views_of_independent_features_cost_nothing() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert max(barlow_terms(z, z)) < 1e-9


def test_a_feature_that_never_changes_is_no_division_by_zero() -> None:
    z1, z2 = embeddings((6, 4))
    z1[:, 0] = 5.0
    z1.requires_grad_()
    terms = barlow_terms(z1, z2)
    assert terms.invariance >= 1
    torch.stack(terms).sum().backward()
    assert z1.grad is not None
    assert torch.isfinite(z1.grad).all()


def test_the_method_weighs_the_terms_of_its_projections() -> None:
    method = make(redundancy_weight=0.3, scale=0.5)
    views = tuple(torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)) for view in views)
    terms = barlow_terms(z1, z2)
    assert torch.allclose(output.loss, 0.5 * (terms.invariance + 0.3 * terms.redundancy))
    assert torch.allclose(output.logs["invariance"], terms.invariance)
    assert torch.allclose(output.logs["redundancy"], terms.redundancy)
    assert torch.allclose(torch.stack(output.embeddings), torch.stack([z1, z2]))
    assert output.per_sample is None


@pytest.mark.parametrize(("hidden", "widths"), [(None, [16, 8, 8, 8]), (20, [16, 20, 20, 8])])
def test_the_projector_has_three_layers(hidden: int | None, widths: list[int]) -> None:
    torch.manual_seed(0)
    linear = [m for m in BarlowTwins(resnet_small(1, 8, 2), 8, hidden).projector if isinstance(m, torch.nn.Linear)]
    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths
    assert all(layer.bias is None for layer in linear)


@pytest.mark.parametrize("options", [{"redundancy_weight": -0.1}, {"scale": 0.0}])
def test_mistakes_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        make(**options)
