"""The core equals what the reference code computes, and a slow reimplementation of the equations in float64."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from evensphere.gh.harmonizer import anchor_scores, harmonization_loss
from evensphere.gh.population import ExactPopulation
from evensphere.ops.contrast import focal_info_nce, info_nce
from evensphere.ops.sinkhorn import transport_plan

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = range(6)


def load(case: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(array)) for name, array in np.load(GOLDEN / f"gh_case{case}.npz").items()}


def relative_distance(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("case", CASES)
def test_assignments_equal_the_reference(case: int) -> None:
    golden = load(case)
    scores = anchor_scores((golden["z1"],), golden["anchors"])[0]
    plan = transport_plan(scores, golden["pi"], float(golden["sinkhorn_temperature"]), max_iterations=300, tolerance=0)
    assert (plan.assignment - golden["q1"]).abs().max() < 1e-5


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_equal_the_reference(case: int) -> None:
    golden = load(case)
    z1, z2 = golden["z1"].requires_grad_(), golden["z2"].requires_grad_()
    loss = harmonization_loss(z1, z2, golden["anchors"], golden["pi"])
    assert loss.item() == pytest.approx(float(golden["gh_loss"]), rel=1e-5)
    for gradient, expected in zip(
        torch.autograd.grad(loss, (z1, z2)), (golden["gh_grad_z1"], golden["gh_grad_z2"]), strict=True
    ):
        assert relative_distance(gradient, expected) < 1e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "loss"), [("nt_xent", info_nce), ("focal", focal_info_nce)])
def test_contrastive_losses_equal_the_reference(case: int, name: str, loss: object) -> None:
    golden = load(case)
    z1 = golden["z1"].requires_grad_()
    per_sample = loss(z1, golden["z2"], 0.2)  # type: ignore[operator]
    assert torch.allclose(per_sample, golden[f"{name}_per_sample"], rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(per_sample.mean(), z1)
    assert relative_distance(gradient, golden[f"{name}_grad_z1"]) < 1e-5


# --- the equations, one number at a time ------------------------------------------------------------------------------


def slow_scores(z: Tensor, anchors: Tensor, normalised: bool = True) -> list[list[float]]:
    rows = [[float(anchor @ embedding) for anchor in anchors] for embedding in z]
    if not normalised:
        return rows
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows]


def slow_labels(scores: list[list[float]], prior: list[float], temperature: float) -> list[list[float]]:
    q = [[math.exp(value / temperature) for value in row] for row in scores]
    for _ in range(300):
        for k, share in enumerate(prior):
            column = sum(row[k] for row in q)
            for row in q:
                row[k] *= share * len(q) / column if share else 0.0
        q = [[value / sum(row) for value in row] for row in q]
    return q


def slow_log_prediction(row: list[float], temperature: float) -> list[float]:
    total = math.log(sum(math.exp(value / temperature) for value in row))
    return [value / temperature - total for value in row]


def slow_loss(
    z1: Tensor, z2: Tensor, anchors: Tensor, prior: Tensor, normalised: bool = True, swapped: bool = False
) -> float:
    scores = [slow_scores(z, anchors, normalised) for z in (z1, z2)]
    labels = [slow_labels(rows, prior.tolist(), 0.05) for rows in scores]
    loss = 0.0
    for view in (0, 1):
        teacher = labels[view] if swapped else labels[1 - view]
        for q, s in zip(teacher, scores[view], strict=True):
            loss -= sum(a * b for a, b in zip(q, slow_log_prediction(s, 0.1), strict=True)) / len(z1)
    return loss


@pytest.fixture(scope="module")
def small_case() -> dict[str, Tensor]:
    golden = load(3)
    return {name: golden[name].double() for name in ("z1", "z2", "anchors", "pi")}


def test_loss_equals_the_equations_in_float64(small_case: dict[str, Tensor]) -> None:
    loss = harmonization_loss(small_case["z1"], small_case["z2"], small_case["anchors"], small_case["pi"])
    assert loss.dtype == torch.float64
    expected = slow_loss(small_case["z1"], small_case["z2"], small_case["anchors"], small_case["pi"])
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert expected == pytest.approx(float(load(3)["gh_loss"]), rel=1e-5), "the slow loop and the reference agree"


@pytest.mark.parametrize("change", [{"normalised": False}, {"swapped": True}])
def test_the_golden_vectors_catch_the_two_easy_mistakes(small_case: dict[str, Tensor], change: dict[str, bool]) -> None:
    """Without the score normalisation, or with a view's own labels, the loss is another one."""
    wrong = slow_loss(small_case["z1"], small_case["z2"], small_case["anchors"], small_case["pi"], **change)
    assert abs(wrong / float(load(3)["gh_loss"]) - 1) > 1e-3


def test_gradients_are_right_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    z1, z2, anchors = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (5, 5, 4))
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    z1.requires_grad_()
    with torch.no_grad():
        labels = [transport_plan(s, prior, 0.05, 300, 0.0).assignment for s in anchor_scores((z1, z2), anchors)]

    def loss_of(z: Tensor) -> Tensor:
        """With the labels held: q has no gradient."""
        predictions = (anchor_scores((z, z2), anchors) / 0.1).log_softmax(-1)
        return -(labels[1] * predictions[0]).sum(-1).mean() - (labels[0] * predictions[1]).sum(-1).mean()

    (expected,) = torch.autograd.grad(loss_of(z1), z1)
    (gradient,) = torch.autograd.grad(harmonization_loss(z1, z2, anchors, prior), z1)
    assert torch.allclose(gradient, expected, atol=1e-14)
    assert torch.autograd.gradcheck(loss_of, (z1,))


# --- the memory -------------------------------------------------------------------------------------------------------


def test_memory_and_population_equal_the_reference() -> None:
    golden = {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "memory.npz").items()}
    images, anchors = golden["memory"].shape
    assert golden["beta_per_epoch"].unique().tolist() == [0.9, 0.999]
    population = ExactPopulation(images, anchors, momentum=(0.9, 0.999))
    for epoch, order in enumerate(golden["orders"]):
        for index in order.split(12):
            warming_up = golden["beta_per_epoch"][epoch] == 0.9
            population.update(index, golden["scores_by_image"][epoch, index], bool(warming_up))
        assert torch.allclose(population.estimate().double(), golden["pi_after_each_epoch"][epoch])
    assert torch.allclose(population.memory.values, golden["memory"], rtol=1e-5, atol=1e-6)
