"""When GH is said to be unlikely to help, and when nothing speaks against it."""

from __future__ import annotations

import pytest

from evensphere.diagnosis.prospects import Plan, anchors_finding, harmonization_finding, length_finding

GOOD = Plan(
    images=10_000,
    batch_size=512,
    epochs=200,
    total_steps=4000,
    anchors=100,
    weight=1.0,
    width=128,
    gh_steps=2000,
    consistency=0.6,
    agreement=0.8,
)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (GOOD._replace(total_steps=500, gh_steps=250), "500 steps are too few"),
        (GOOD._replace(gh_steps=100), "GH acts on 100 steps only"),
        (GOOD._replace(agreement=0.44), "one region only 44"),
        (GOOD._replace(consistency=0.08), "share only 8"),
    ],
)
def test_each_reason_against_gh_is_given(plan: Plan, words: str) -> None:
    found = harmonization_finding(plan)
    assert found.level == "warning"
    assert found.sentence.startswith("Unlikely")
    assert words in found.sentence


def test_without_a_reason_only_a_comparison_tells() -> None:
    found = harmonization_finding(GOOD)
    assert found.level == "info"
    assert "not evidence that it helps" in found.sentence
    assert "--arm two-stage" in found.advice


def test_a_run_that_has_no_gh_or_little_of_it_is_not_warned() -> None:
    against = GOOD._replace(consistency=0.1)
    assert harmonization_finding(against._replace(weight=0.3)).level == "info"
    assert harmonization_finding(against._replace(anchors=None, agreement=None)).level == "info"


def test_before_training_nobody_can_say() -> None:
    assert "Nobody can say" in harmonization_finding(GOOD._replace(consistency=None, agreement=None)).sentence


@pytest.mark.parametrize(
    ("anchors", "images", "level"),
    [(100, 10_000, "ok"), (100, 1000, "warning"), (10, 10_000, "warning"), (20, 1000, "ok")],
)
def test_the_number_of_regions(anchors: int, images: int, level: str) -> None:
    found = anchors_finding(GOOD._replace(anchors=anchors, images=images))
    assert found is not None
    assert found.level == level
    assert anchors_finding(GOOD._replace(anchors=None)) is None


def test_a_plan_that_is_too_short() -> None:
    assert length_finding(GOOD).level == "ok"
    short = length_finding(GOOD._replace(epochs=10, total_steps=200))
    assert short.level == "warning"
    assert "epochs=50" in short.advice
