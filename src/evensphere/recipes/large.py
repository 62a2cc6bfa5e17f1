"""Recipes for the paper's large sets, ImageNet-LT and Places-LT; for GPUs, where the images are (--data PATH)."""

from __future__ import annotations

from dataclasses import replace

from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, arm_parts


def imagenet_lt(arm: str = "gh") -> Recipe:
    """The paper's setting (section 5.1): ResNet-50, batch 256, 500 epochs, GH from epoch 400 with a ramp of 30.

    Linear probes are fitted on 100 images of each class, as in the paper, whose list has to lie beside the others (see
    `data.published.imagenet_lt`); `--set data.balanced_probe=false` does without and fits them on the long tail.

    Differs from the authors' in when pi is recomputed: after every batch of every 20th epoch, as on CIFAR, where their
    large-scale script does it between epochs. A memory that is moved once a visit is the same in both.
    """
    gh = Part("gh", anchors=100, warm_up=0.8, ramp=0.06, update_every="20 epochs", momentum=[0.9, 0.999], floor=100.0)
    harmonizer, schedule = arm_parts(arm, gh, learning_rate=0.5, warm_up=0.02, middle=0.1)
    return Recipe(
        name="imagenet-lt",
        summary="ImageNet-LT, the paper's setting",
        data=Part("imagenet-lt", balanced_probe=True),
        views=Part("photos", size=224),
        backbone=Part("resnet50", stem="imagenet"),
        method=Part("simclr", temperature=0.2),
        harmonizer=harmonizer,
        optimizer=Part("sgd", momentum=0.9, weight_decay=1e-4),
        schedule=schedule,
        epochs=500,
        batch_size=256,
        evaluate_every="50 epochs",
        checkpoint_every="5 epochs",
        snapshot_every="100 epochs",
        metrics=("knn", "probe", "probe_paper"),
    )


def places_lt(arm: str = "gh") -> Recipe:
    """As `imagenet_lt`, on Places-LT. 128 of the probe's images are validation images: choose nothing by it."""
    return replace(
        imagenet_lt(arm),
        name="places-lt",
        summary="Places-LT, the paper's setting",
        data=Part("places-lt", balanced_probe=True),
    )
