"""The recipe for a folder of the reader's own images."""

from __future__ import annotations

from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, arm_parts


def folder(arm: str = "gh") -> Recipe:
    """ResNet-18 on a folder of images, labelled or not; GH from the middle of the run.

    Length, view size, batch size, learning rate, stem and the number of anchors follow from the data (see
    `recipe.with_sizes`) and are written to recipe.json. Checkpoints are written by steps, since an epoch may be four of
    them or thousands.
    """
    gh = Part("gh", anchors="auto", warm_up=0.5, ramp=0.05, update_every="10 epochs")
    harmonizer, schedule = arm_parts(arm, gh, learning_rate="auto", warm_up=0.05, middle="auto")
    return Recipe(
        name="folder",
        summary="a folder of images",
        data=Part("folder"),
        views=Part("photos", size="auto"),
        backbone=Part("resnet18", stem="auto"),
        method=Part("simclr"),
        harmonizer=harmonizer,
        optimizer=Part("sgd", weight_decay=1e-4),
        schedule=schedule,
        epochs="auto",
        batch_size="auto",
        evaluate_every="10 epochs",
        checkpoint_every="200 steps",
    )
