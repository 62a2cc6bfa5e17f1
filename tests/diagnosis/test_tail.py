"""Findings about the sparse end, on features where it is known to be well, badly or not at all looked after."""

from __future__ import annotations

import pytest
import torch
from tests.diagnosis.made_up import cloud, crowds, seen
from torch import Tensor

from evensphere.diagnosis.finding import Finding
from evensphere.diagnosis.look import Look
from evensphere.diagnosis.tail import (
    by_tenth,
    consistency_of,
    density_finding,
    detail_finding,
    neighbourhood_finding,
    neighbourhoods,
    trend_finding,
)
from evensphere.errors import InputError

FEATURES = cloud(600, 8)
NAMES = [f"image{i}" for i in range(600)]


def neighbourhood(look: Look) -> Finding:
    found = neighbourhood_finding(neighbourhoods(look))
    assert found is not None
    return found


def test_views_that_agree_are_reliable_and_views_that_do_not_are_not() -> None:
    assert neighbourhood(seen(FEATURES, 0.05)).level == "ok"
    found = neighbourhood(seen(FEATURES, 2.0))
    assert found.level == "warning"
    assert found.sentence.startswith("Not reliable here")
    assert found.numbers["percent"] < 30


def test_without_views_nothing_is_said_of_them() -> None:
    assert neighbourhood_finding(neighbourhoods(Look(torch.arange(600), FEATURES))) is None


def test_a_tail_that_is_confused_is_told_from_a_head_that_is_not() -> None:
    """A crowd whose views hardly move, and loners whose views are others altogether."""
    features = torch.cat([FEATURES[:60], crowds([540], noise=0.05, width=8)])
    moves = torch.cat([torch.full((60, 1), 3.0), torch.full((540, 1), 0.001)])
    views = torch.stack([features + moves * cloud(600, 8, seed) for seed in (5, 6)], dim=1)
    found = neighbourhood(Look(torch.arange(600), features, views))
    assert found.level == "warning"
    assert "hardly where images are sparse" in found.sentence


def test_density_names_the_loners_and_copies_are_a_warning() -> None:
    loners = torch.cat([crowds([590], width=8), -cloud(10, 8)])
    found = density_finding(neighbourhoods(seen(loners, 0.1)), NAMES)
    assert found.level == "info"
    assert set(found.numbers["sparsest"][:8]) <= set(NAMES[590:])
    assert found.numbers["sparsest"][0] in found.sentence
    copies = torch.cat([FEATURES[:500], FEATURES[:1].expand(100, 8)])
    assert density_finding(neighbourhoods(seen(copies, 0.1)), NAMES).level == "warning"


def test_a_tail_along_one_direction_is_told_apart_less() -> None:
    """Sparse images on an arc, the others in a crowd that fills all directions."""
    angle = torch.linspace(0.5, 2.6, 60)[:, None]
    arc = angle.cos() * torch.eye(16)[:1] + angle.sin() * torch.eye(16)[1:2]
    features = torch.cat([arc, crowds([540], noise=0.01, width=16)])
    look = seen(features, 0.001)
    near = neighbourhoods(look)
    assert (near.tenths[:60] == 0).float().mean() > 0.8
    assert detail_finding(look, near).level == "warning"
    even = seen(cloud(600, 16), 0.1)
    assert detail_finding(even, neighbourhoods(even)).level == "ok"


def consistencies(apart: list[float]) -> list[tuple[float, Tensor]]:
    found = []
    for epoch, one in enumerate(apart):
        consistency = consistency_of(seen(FEATURES, one))
        assert consistency is not None
        found.append((float(epoch), consistency))
    return found


def test_a_tail_that_gets_worse_is_a_warning_and_one_that_gets_better_is_not() -> None:
    tenths = neighbourhoods(seen(FEATURES, 0.1)).tenths
    better, worse = consistencies([1.0, 0.1]), consistencies([0.1, 1.0])
    assert trend_finding(better[:1], tenths) is None
    for course, level in ((better, "ok"), (worse, "warning")):
        found = trend_finding(course, tenths)
        assert found is not None
        assert found.level == level
    good, bad = worse[0][1], worse[1][1]
    swapped = [(0.0, torch.where(tenths == 0, good, bad)), (1.0, torch.where(tenths == 0, bad, good))]
    found = trend_finding(swapped, tenths)
    assert found is not None
    assert "while the others got better" in found.sentence


def test_where_views_do_not_agree_nothing_local_is_called_fine() -> None:
    blurred = seen(FEATURES, 2.0)
    near = neighbourhoods(blurred)
    found = trend_finding(consistencies([2.0, 2.0]), near.tenths)
    assert found is not None
    assert found.level == "info"
    assert "Not reliable here" in found.sentence
    assert "not reliable here" in density_finding(near, NAMES).sentence
    assert "not reliable" not in density_finding(neighbourhoods(seen(FEATURES, 0.05)), NAMES).sentence


def test_the_interval_of_a_tenth_is_that_of_its_mean() -> None:
    values, tenths = cloud(1000, 1)[:, 0], torch.arange(1000) // 100
    for tenth, (mean, low, high) in enumerate(by_tenth(values, tenths)):
        chosen = values[tenths == tenth]
        assert mean == pytest.approx(float(chosen.mean()), abs=1e-6)
        assert high - low == pytest.approx(2 * 1.96 * float(chosen.std()) / 10, rel=1e-3)


def test_too_few_images_are_refused() -> None:
    few = seen(FEATURES[:99], 0.1)
    with pytest.raises(InputError, match="give 100 or more"):
        neighbourhoods(few)
