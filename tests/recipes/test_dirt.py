"""Training through every kind of dirt: each file is decoded right, or passed over with the reason."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.dirt import DIRT, Dirt, dangling_link, pixels_of, sample_photos, write_dirt

from evensphere.data.cifar import cifar100
from evensphere.data.encoded import as_text
from evensphere.data.folder import folder
from evensphere.data.scan import scan
from evensphere.recipes import storing
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

# real ones: scikit-learn's everywhere, CIFAR's where somebody says that they are
PHOTOGRAPHS = ["scikit-learn", *(["cifar"] if "EVENSPHERE_DATA" in os.environ else [])]
CLASSES = ("odd", "even")
VANISHING = "odd/vanishing.png"


def folder_of(place: int) -> str:
    return CLASSES[place % 2]


def photographs(kind: str, count: int) -> list[Image.Image]:
    if kind == "scikit-learn":
        return sample_photos(count)
    source = cifar100(imbalance=1).pretrain
    images = [Image.fromarray(source.read(i).permute(1, 2, 0).numpy()) for i in range(count)]
    return [image.resize((96, 80), Image.Resampling.BICUBIC) for image in images]


class Collection:
    """A folder with every kind of dirt in two classes, and the photographs that the files were made of."""

    def __init__(self, root: Path, photos: list[Image.Image]) -> None:
        self.root = root
        self.expected: dict[str, tuple[Dirt, Image.Image]] = {}
        for place, (name, photo) in enumerate(zip(DIRT, photos, strict=True)):
            write_dirt(root / folder_of(place), name, photo)
            self.expected[as_text(f"{folder_of(place)}/{name}")] = DIRT[name], photo
        dangling_link(root / "even" / "dangling.jpg")
        shutil.copy(root / "odd" / "plain.png", root / VANISHING)
        (root / "odd" / "folder called.jpg").mkdir()  # holds nothing, is nothing
        (root / "odd" / "notes.txt").write_text("no picture, and not called one")

    @property
    def reasons(self) -> dict[str, str]:
        """What is to stand in skipped.csv."""
        told = {where: dirt.outcome for where, (dirt, _) in self.expected.items() if isinstance(dirt.outcome, str)}
        return told | {"even/dangling.jpg": "No such file or directory", VANISHING: "No such file or directory"}


@pytest.fixture(scope="module", params=PHOTOGRAPHS)
def dirty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, RunDir]:
    """The run that was trained on it: GH, two epochs; one file vanished after the first look."""
    collection = Collection(tmp_path_factory.mktemp("dirt"), photographs(request.param, len(DIRT)))
    look = scan

    def scan_then_lose(*arguments: Any) -> list[tuple[int, str]]:
        found = look(*arguments)
        (collection.root / VANISHING).unlink()
        return found

    settings = ["epochs=2", "workers=2", "storage=files", "views.size=32", "backbone.width=4", "harmonizer.anchors=4"]
    recipe = with_data(get_recipe("folder"), str(collection.root)).set(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing, "scan", scan_then_lose)
        run = RunDir(train(recipe, tmp_path_factory.mktemp("run") / "run"))
    return collection, run


def test_the_run_is_finished_and_its_numbers_are_numbers(dirty: tuple[Collection, RunDir]) -> None:
    _, run = dirty
    assert run.encoder_file.exists()
    losses = [event["loss"] for event in run.read_metrics() if event["event"] == "step"]
    assert losses
    assert np.isfinite(losses).all()


def test_every_file_is_used_or_listed(dirty: tuple[Collection, RunDir]) -> None:
    collection, run = dirty
    skipped = dict(run.read_skipped())
    assert len(skipped) == len(run.read_skipped())
    assert set(skipped) == set(collection.reasons)
    for where, reason in collection.reasons.items():
        assert re.search(reason, skipped[where]), where
        assert "\n" not in skipped[where]
    used = set(run.read_images())
    assert used - {VANISHING} == set(collection.expected) - set(skipped)
    assert VANISHING in used, "it was there at the first look"


@pytest.mark.parametrize("name", [name for name, dirt in DIRT.items() if not isinstance(dirt.outcome, str)])
def test_what_was_decoded_is_what_a_viewer_shows(dirty: tuple[Collection, RunDir], name: str) -> None:
    collection, _ = dirty
    source = folder(collection.root, channels=3).pretrain
    where = {source.location(i): i for i in range(len(source))}
    place = next(where[key] for key in collection.expected if key.endswith(as_text(f"/{name}")))
    dirt, photo = collection.expected[source.location(place)]
    assert callable(dirt.outcome)
    expected = pixels_of(dirt.outcome(photo))
    pixels = source.read(place).numpy().astype(np.int64)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() <= dirt.tolerance


def test_dirt_can_be_evaluated(dirty: tuple[Collection, RunDir]) -> None:
    """The readable images alone are scored, of a 60/20/20 split of all."""
    _, run = dirty
    results = evaluate(run.path, metrics=["knn"])
    assert results["classes"] == ["even", "odd"]
    assert 0 <= results["knn"]["average"] <= 100
