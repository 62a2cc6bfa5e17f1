"""Recipes for scikit-learn's digits."""

from __future__ import annotations

from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, arm_parts


def digits_lt(arm: str = "gh") -> Recipe:
    """Long-tailed digits (imbalance 20), a network small enough for a laptop, views without flips and colour."""
    gh = Part("gh", anchors="auto", warm_up=0.5, ramp=0.05)
    harmonizer, schedule = arm_parts(arm, gh, learning_rate=0.3, warm_up=0.05, middle=0.18)
    return Recipe(
        name="digits-lt",
        summary="long-tailed handwritten digits, 8x8",
        data=Part("digits", imbalance=20),
        views=Part("digits", size=8),
        backbone=Part("resnet-small", width=32, stages=2),
        method=Part("simclr"),
        harmonizer=harmonizer,
        optimizer=Part("sgd"),
        schedule=schedule,
        epochs=100,
        batch_size=128,
        precision="32-true",
        evaluate_every="10 epochs",
        checkpoint_every="25 epochs",
    )
