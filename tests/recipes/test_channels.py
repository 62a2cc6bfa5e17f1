"""Images of any number of channels, from the files to the first convolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.recipes.test_run import save_digits

from evensphere.data.digits import digits
from evensphere.data.source import ArraySource, UnreadableImage
from evensphere.errors import InputError
from evensphere.recipes.channels import with_channels
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

QUICK = ["epochs=1", "workers=0", "views.size=32", "monitor=knn"]
BACKBONES = {
    "cifar": ["backbone=resnet18", "backbone.width=4", "backbone.stem=cifar"],
    "timm-resnet18": ["backbone=timm/resnet18"],
    "timm-vit": ["backbone=timm/vit_tiny_patch16_224"],
}


def save_arrays(root: Path, channels: int, count: int = 16, dtype: Any = np.uint8) -> Path:
    """Two classes that differ in their last channel."""
    for i in range(count):
        target = root / f"class{i % 2}" / f"{i:02}.npy"
        target.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.RandomState(i).randint(0, 128, (36, 40, channels)).astype(dtype)
        values[..., -1] += 100 * (i % 2)
        np.save(target, values if channels > 1 else values[..., 0])
    return root


def on(data: Path, *settings: str) -> Recipe:
    return with_data(get_recipe("folder", "base"), str(data)).set([*QUICK, *settings])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("channels", [1, 4, 6])
def test_every_backbone_takes_the_channels_there_are(tmp_path: Path, backbone: str, channels: int) -> None:
    images = save_arrays(tmp_path / "images", channels)
    run = RunDir(train(on(images, *BACKBONES[backbone]), tmp_path / "run"))
    recipe = run.read_recipe()
    assert (recipe["resolved"]["channels"], recipe["resolved"]["bits"]) == (channels, 8)
    assert len(recipe["views"]["options"]["mean"]) == channels
    weights = load_file(run.encoder_file)
    assert weights["patch_embed.proj.weight" if "vit" in backbone else "conv1.weight"].shape[1] == channels
    assert all(np.isfinite(event["loss"]) for event in run.read_metrics() if event["event"] == "step")


def test_a_run_of_16_bits_and_six_channels_goes_all_the_way(tmp_path: Path) -> None:
    """Trained, resumed, evaluated on its own images and on others, which are read as it was trained."""
    images = save_arrays(tmp_path / "images", 6, dtype=np.uint16)
    recipe = on(images, "data.bits=16", "backbone=resnet-small", "backbone.width=4", "epochs=2")
    run = RunDir(train(recipe, tmp_path / "run"))
    resolved = run.read_recipe()["resolved"]
    assert (resolved["channels"], resolved["bits"]) == (6, 16)
    mean = run.read_recipe()["views"]["options"]["mean"]
    assert mean == pytest.approx([63.5 / 65535] * 5 + [113.5 / 65535], abs=1e-4)
    assert evaluate(run.path, metrics=["knn"])["knn"]["average"] >= 0
    other = save_arrays(tmp_path / "other", 6, dtype=np.uint16)
    assert evaluate(run.path, data=other, metrics=["knn"])["knn"] == evaluate(run.path, metrics=["knn"])["knn"]

    weights = run.encoder_file.read_bytes()
    run.encoder_file.unlink()
    run.checkpoint_file(run.checkpoint_steps()[-1]).unlink()
    train(recipe, run.path, resume=True)
    assert run.encoder_file.read_bytes() == weights


def test_a_run_goes_on_with_the_channels_it_was_begun_with(tmp_path: Path) -> None:
    """Grey images, to which a coloured one is added between stop and resume; it is not of the run."""
    from PIL import Image

    images = save_digits(tmp_path / "images")
    recipe = on(images, "backbone=resnet-small", "backbone.width=4", "epochs=2")
    run = RunDir(train(recipe, tmp_path / "run"))
    assert run.read_recipe()["resolved"]["channels"] == 1
    assert run.read_recipe()["resolved"]["adapted"] == [
        f"views.options.{name}" for name in ("mean", "std", "jitter", "gray")
    ]
    weights = run.encoder_file.read_bytes()
    run.encoder_file.unlink()
    run.checkpoint_file(run.checkpoint_steps()[-1]).unlink()
    Image.new("RGB", (20, 20), "red").save(images / "class0" / "red.png")
    train(recipe, run.path, resume=True)
    assert run.encoder_file.read_bytes() == weights
    train(Recipe.from_json(run.read_recipe()), run.path, resume=True)
    with pytest.raises(InputError, match=r"begun with data\.options\.channels=None, and 3 was given now"):
        train(recipe.set(["data.channels=3"]), run.path, resume=True)
    with pytest.raises(InputError, match=r"views\.options\.gray=0\.0, and 0\.5 was given now"):
        train(recipe.set(["views.gray=0.5"]), run.path, resume=True)


def test_a_branch_knows_what_its_run_found_out(tmp_path: Path) -> None:
    images = save_digits(tmp_path / "images")
    small = ["backbone=resnet-small", "backbone.width=4", "epochs=2", "harmonizer.anchors=4"]
    gh = with_data(get_recipe("folder"), str(images)).set([*QUICK, *small])
    control = with_data(get_recipe("folder", "two-stage"), str(images)).set([*QUICK, *small[:-1]])
    train(gh, tmp_path / "gh")
    branch = RunDir(train(control, tmp_path / "branch", branch=tmp_path / "gh"))
    alone = RunDir(train(control, tmp_path / "alone"))
    assert branch.read_recipe()["resolved"]["adapted"] == alone.read_recipe()["resolved"]["adapted"]
    assert branch.encoder_file.read_bytes() == alone.encoder_file.read_bytes()
    train(control, branch.path, resume=True)


def flat(channels: int, *levels: int) -> ArraySource:
    images = torch.zeros(len(levels), channels, 4, 4, dtype=torch.uint8)
    images += torch.tensor(levels, dtype=torch.uint8)[:, None, None, None]
    return ArraySource("flat", images)


def test_grey_views_have_the_luminance_of_the_coloured_ones() -> None:
    recipe = with_channels(get_recipe("folder").set(["views.size=32"]), flat(1, 0, 9))
    options = recipe.views.options
    assert options["mean"] == [pytest.approx(0.299 * 0.485 + 0.587 * 0.456 + 0.114 * 0.406, abs=5e-5)]
    assert options["std"] == [pytest.approx(0.299 * 0.229 + 0.587 * 0.224 + 0.114 * 0.225, abs=5e-5)]
    assert options["jitter"] == [0.4, 0.4, 0.0, 0.0]
    assert options["gray"] == 0.0
    build("views", recipe.views)


def test_coloured_views_of_a_grey_recipe() -> None:
    recipe = with_channels(get_recipe("digits-lt"), flat(3, 0, 9))
    assert recipe.views.options["mean"] == [0.3053] * 3
    assert recipe.views.options["std"] == [0.3760] * 3
    build("views", recipe.views)


def test_other_numbers_of_channels_are_measured() -> None:
    recipe = with_channels(get_recipe("folder").set(["views.size=32"]), flat(5, 51, 153))
    assert recipe.views.options["mean"] == [0.4] * 5
    assert recipe.views.options["std"] == [0.2] * 5
    assert recipe.views.options["jitter"] == [0.4, 0.0, 0.0, 0.0]
    build("views", recipe.views)
    constant = with_channels(get_recipe("folder").set(["views.size=32"]), flat(5, 51, 51))
    assert constant.views.options["std"] == [round(1 / 255, 4)] * 5


def test_an_unreadable_image_has_no_say() -> None:
    class Broken(ArraySource):
        def read(self, i: int) -> Any:
            if i == 0:
                raise UnreadableImage("cut short")
            return super().read(i)

    images = torch.full((2, 4, 2, 2), 51, dtype=torch.uint8)
    recipe = with_channels(get_recipe("folder").set(["views.size=2"]), Broken("four", images))
    assert recipe.views.options["mean"] == pytest.approx([0.2] * 4)
    with pytest.raises(InputError, match="No image of four can be read"):
        with_channels(get_recipe("folder").set(["views.size=2"]), Broken("four", images[:1]))


def test_views_that_fit_stay_as_they_are() -> None:
    recipe = get_recipe("digits-lt")
    assert with_channels(recipe, digits(imbalance=20).pretrain) is recipe


def test_what_the_recipe_says_stays() -> None:
    recipe = get_recipe("folder").set(["views.size=32", "views.gray=0.1", "views.mean=[0.5]"])
    adapted = with_channels(recipe, flat(1, 0, 9))
    assert adapted.views.options["gray"] == 0.1
    assert adapted.views.options["mean"] == [0.5]
    assert adapted.resolved["adapted"] == ["views.options.std", "views.options.jitter"]
    with pytest.raises(InputError, match="need 3 channels"):
        build("views", adapted.views)
    with pytest.raises(InputError, match=r"views.mean = \[0.5\] was given, and the images of flat have 5 channel"):
        with_channels(recipe, flat(5, 0, 9))
