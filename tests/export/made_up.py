"""A finished run without the training: an encoder with random weights and statistics, and pictures for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from evensphere.engine.checkpoint import save_encoder
from evensphere.recipes.images import splits_of, write_images
from evensphere.recipes.network import build_encoder
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.rundir import RunDir

RESNET18 = ("backbone=resnet18", "backbone.stem=imagenet", "views.size=64")


def pictures(folder: Path, count: int = 6, side: int = 70, classes: int = 2) -> Path:
    """Smooth textures in class folders."""
    random = np.random.default_rng(0)
    for i in range(count):
        file = folder / f"kind{i % classes}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        coarse.resize((side + 10, side), Image.Resampling.BICUBIC).save(file)
    return folder


def made_run(folder: Path, *settings: str) -> RunDir:
    """A run folder with pictures beside it, as training would have left it."""
    images = pictures(folder.with_name(f"{folder.name}-pictures"))
    recipe = with_data(get_recipe("folder", "base"), str(images)).set(["batch_size=16", *settings])
    channels = len(recipe.views.options.get("mean", (0, 0, 0)))
    splits = splits_of(recipe)
    resolved = {"channels": channels, "bits": 8, "num_images": len(splits.pretrain), "total_steps": 7}
    recipe = replace(recipe, resolved=resolved)
    run = RunDir(folder)
    run.create()
    encoder = build_encoder(recipe, channels)
    randomise(encoder)
    save_encoder(run.encoder_file, encoder, {})
    write_images(run, splits.pretrain)
    run.write_json(run.recipe_file, recipe.to_json())
    return run


def randomise(network: torch.nn.Module) -> None:
    """Weights and statistics other than those that networks begin with."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=random))
            elif name.endswith("running_mean") or name.endswith("bias"):
                value.copy_(0.1 * torch.randn(value.shape, generator=random))
