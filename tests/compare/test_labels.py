"""Cross-validation on a few labels: who is held out when, and what comes of encoders that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from evensphere.compare.labels import compare_on_labels, dealt, right_by_image
from evensphere.errors import InputError
from evensphere.metrics.bank import FeatureBank
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train


def test_parts_are_dealt_evenly_and_alike() -> None:
    labels = torch.tensor([0] * 12 + [1] * 5 + [2] * 2)
    part = dealt(labels, 5, seed=0, time=0)
    for c, size in enumerate((12, 5, 2)):
        held = torch.bincount(part[labels == c], minlength=5)
        assert int(held.max() - held.min()) <= 1
        assert int(held.max()) < size, "someone is left to learn from"
    sizes = torch.bincount(part, minlength=5)
    assert int(sizes.max() - sizes.min()) <= 1
    assert torch.equal(part, dealt(labels, 5, seed=0, time=0))
    assert not torch.equal(part, dealt(labels, 5, seed=0, time=1))


@pytest.mark.parametrize("metric", ["probe", "knn"])
def test_features_that_hold_the_class_are_right_and_noise_is_not(metric: str) -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 2 + [3])
    generator = torch.Generator().manual_seed(0)
    clear = FeatureBank(torch.eye(4)[labels] + 0.01 * torch.randn(23, 4, generator=generator), labels)
    right = right_by_image(clear, metric)
    assert right.shape == (22,), "the single image of class 3 is left out"
    assert right[:20].tolist() == [1.0] * 20
    noise = right_by_image(clear._replace(features=torch.randn(23, 4, generator=generator)), metric)
    assert noise.mean() < 0.75
    assert set((noise * 5).round(9).tolist()) <= {0, 1, 2, 3, 4, 5}


def save_digits(folder: Path, each: int, classes: int = 3) -> Path:
    digits = load_digits()
    for c in range(classes):
        (folder / f"digit{c}").mkdir(parents=True)
        for i, number in enumerate(np.flatnonzero(digits.target == c)[:each]):
            Image.fromarray((digits.images[number] * 15.9).astype(np.uint8)).save(folder / f"digit{c}" / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two narrow networks: one that has learnt something, and one whose learning rate was too small for that."""
    folder = tmp_path_factory.mktemp("runs")
    settings = ["epochs=4", "backbone.width=4", "monitor=", "schedule.warm_up=0.0"]
    recipe = get_recipe("digits-lt", "base").set(settings)
    lazy = recipe.set(["schedule.learning_rate=1e-9", "schedule.final=1e-10"])
    return [train(recipe, folder / "keen"), train(lazy, folder / "lazy")]


def test_two_encoders_on_a_folder_of_labels(runs: list[Path], tmp_path: Path) -> None:
    found = compare_on_labels([str(save_digits(tmp_path / "labels", each=6))], runs)
    assert (found.split, found.images, list(found.groups)) == ("labelled", 18, ["average"])
    one = found.groups["average"]
    assert one.change.estimate == pytest.approx(one.first - one.second)
    assert one.change.low <= one.change.estimate <= one.change.high
    assert found == compare_on_labels([str(tmp_path / "labels")], runs), "the same parts every time"
    settled = any("settled by 18 labels of 3 classes" in caution.lower() for caution in found.cautions)
    assert settled == one.change.settled
    assert settled or any("more label" in caution or "no difference" in caution.lower() for caution in found.cautions)


def test_labels_that_are_too_few_or_missing_are_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two labels of at least two classes"):
        compare_on_labels([str(save_digits(tmp_path / "one", each=1))], runs)
    flat = save_digits(tmp_path / "flat", each=4, classes=1) / "digit0"
    with pytest.raises(InputError, match="has no label for every image"):
        compare_on_labels([str(flat)], runs)
    with pytest.raises(InputError, match="did you mean 'probe'"):
        compare_on_labels([str(flat)], runs, metric="prob")
