"""VICReg: the terms against a loop written from the paper and against Lightly, and what each of them asks for."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.vicreg import VICReg, vicreg_terms
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 1)
SIZES = [(4, 3), (16, 5), (9, 20)]


def make(**options: float) -> VICReg:
    torch.manual_seed(0)
    return VICReg(resnet_small(1, width=4, stages=2), embedding_dim=8, **options)  # type: ignore[arg-type]


def embeddings(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two views that have something in common; some features spread more than 1 and some less."""
    generator = torch.Generator().manual_seed(0)
    common, a, b = torch.randn(3, *size, dtype=torch.float64, generator=generator)
    spread = torch.linspace(0.3, 1.7, size[1], dtype=torch.float64)
    return spread * (common + 0.5 * a) + 2, spread * (common + 0.5 * b) - 1


def reference(z1: Tensor, z2: Tensor) -> tuple[float, float, float]:
    """Equations 1 to 6 of the paper with the scaling of the authors' code (see the module's docstring)."""
    count, dim = z1.shape
    pair = (z1.tolist(), z2.tolist())
    invariance = sum((x - y) ** 2 for a, b in zip(*pair, strict=True) for x, y in zip(a, b, strict=True))
    variance = covariance = 0.0
    for z in pair:
        means = [sum(row[j] for row in z) / count for j in range(dim)]
        for i in range(dim):
            for j in range(dim):
                c = sum((row[i] - means[i]) * (row[j] - means[j]) for row in z) / (count - 1)
                if i == j:
                    variance += max(0.0, 1 - math.sqrt(c + 1e-4)) / dim / 2
                else:
                    covariance += c**2 / dim
    return invariance / (count * dim), variance, covariance


@pytest.mark.parametrize("size", SIZES)
def test_the_terms_equal_the_papers(size: tuple[int, int]) -> None:
    z1, z2 = embeddings(size)
    assert [term.item() for term in vicreg_terms(z1, z2)] == pytest.approx(reference(z1, z2), rel=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_the_loss_equals_lightlys(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of when it is imported is not ours
        lightly = pytest.importorskip("lightly.loss")
    z1, z2 = embeddings(size)
    s, v, c = vicreg_terms(z1, z2)
    theirs = lightly.VICRegLoss(lambda_param=3.0, mu_param=5.0, nu_param=7.0)(z1, z2)
    assert torch.allclose(3 * s + 5 * v + 7 * c, theirs, rtol=1e-10)


def test_each_term_sees_its_own_defect() -> None:
    good = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    assert max(vicreg_terms(good, good)) < 1e-9
    moved, shrunk, doubled = good + 1, good * 0.1, good[:, [0, 0]]
    assert [term > 1e-3 for term in vicreg_terms(good, moved)] == [True, False, False]
    assert [term > 1e-3 for term in vicreg_terms(shrunk, shrunk)] == [False, True, False]
    assert [term > 1e-3 for term in vicreg_terms(doubled, doubled)] == [False, False, True]


def test_collapsed_embeddings_have_a_finite_slope() -> None:
    z = torch.ones(6, 4, requires_grad=True)
    torch.stack(vicreg_terms(z, z)).sum().backward()
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_the_method_weighs_the_terms_of_its_projections() -> None:
    method = make(invariance_weight=2.0, variance_weight=3.0, covariance_weight=5.0)
    views = tuple(torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    output = method(views, None, PROGRESS)
    z1, z2 = (method.projector(method.encoder(view)) for view in views)
    terms = vicreg_terms(z1, z2)
    assert torch.allclose(output.loss, 2 * terms.invariance + 3 * terms.variance + 5 * terms.covariance)
    for name, term in terms._asdict().items():
        assert torch.allclose(output.logs[name], term)
    assert torch.allclose(torch.stack(output.embeddings), torch.stack([z1, z2]))
    assert output.per_sample is None


@pytest.mark.parametrize("name", ["invariance_weight", "variance_weight", "covariance_weight"])
def test_mistakes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        make(**{name: -1.0})
