"""A burst counts once: what the harmonizer is told, when, and that it is told the same when a run goes on."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.data.image_files import recorded_reads
from torch import Tensor

from evensphere.data.duplicates import Fingerprints
from evensphere.data.encoded import FileSource
from evensphere.data.scan import scan
from evensphere.errors import InputError
from evensphere.recipes import building, storing
from evensphere.recipes.building import revisit
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

TAKES = (5, 1, 3) + (1,) * 24  # so many pictures of each scene
WEIGHTS = [1 / takes for takes in TAKES for _ in range(takes)]


def save_takes(folder: Path, takes: tuple[int, ...] = TAKES) -> Path:
    """Some pictures of each scene: the same but for noise."""
    folder.mkdir(parents=True)
    for scene, count in enumerate(takes):
        draw = np.random.RandomState(scene)
        picture = Image.fromarray(draw.randint(0, 256, (5, 5, 3)).astype(np.uint8)).resize((40, 40))
        for take in range(count):
            noise = draw.randint(-4, 5, (40, 40, 3))
            pixels = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"scene{scene:02}-{take}.png")
    return folder


def recipe_for(images: Path, *settings: str, arm: str = "gh") -> Recipe:
    fast = ["epochs=2", "workers=0", "storage=files", "backbone.width=4", "batch_size=8", "views.size=32"]
    return with_data(get_recipe("folder", arm), str(images)).set([*fast, *settings])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """What harmonizers are told of the images' weights."""
    weights: list[Tensor | None] = []

    def listening(kind: str, part: Any, **given: Any) -> Any:
        if kind == "harmonizer":
            weights.append(given["sample_weights"])
        return build(kind, part, **given)

    monkeypatch.setattr(building, "build", listening)
    return weights


def test_the_images_of_a_burst_share_one_count(
    tmp_path: Path, told: list[Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Console(file=io.StringIO(), width=200)
    looks: list[int] = []

    def counting(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            reads = recorded_reads(patch)
            found = scan(*arguments)
        looks.extend(reads)
        return found

    monkeypatch.setattr(storing, "scan", counting)
    run = RunDir(train(recipe_for(save_takes(tmp_path / "images")), tmp_path / "run", console=said))
    assert told[0] is not None
    assert told[0].tolist() == pytest.approx(WEIGHTS)
    assert run.read_recipe()["near_duplicates"] == "once", "the choice is written down"
    assert run.read_groups() == [scene for scene, takes in enumerate(TAKES) for _ in range(takes)]
    assert "8 images in 2 bursts of near-duplicates count once" in said.file.getvalue()  # type: ignore[attr-defined]
    assert sorted(looks) == list(range(len(WEIGHTS))), "each image was decoded once for this"


def test_a_run_that_goes_on_weighs_alike(tmp_path: Path, told: list[Tensor | None]) -> None:
    images = save_takes(tmp_path / "images")
    run = RunDir(train(recipe_for(images), tmp_path / "run"))
    weights = run.encoder_file.read_bytes()
    run.encoder_file.unlink()
    run.checkpoint_file(run.checkpoint_steps()[-1]).unlink()
    Image.new("RGB", (40, 40)).save(images / "scene00-9.png")  # came later, and takes no part
    train(recipe_for(images), run.path, resume=True)
    revisit(run, run.checkpoint_steps()[-1])
    assert len(told) == 3
    assert all(one is not None and one.tolist() == pytest.approx(WEIGHTS) for one in told)
    assert run.encoder_file.read_bytes() == weights
    with pytest.raises(InputError, match="begun with near_duplicates=once, and each was given now"):
        train(recipe_for(images, "near_duplicates=each"), run.path, resume=True)


def test_a_branch_weighs_like_the_run_it_leaves(tmp_path: Path, told: list[Tensor | None]) -> None:
    images = save_takes(tmp_path / "images")
    begun = RunDir(train(recipe_for(images, "near_duplicates=each"), tmp_path / "begun"))
    train(recipe_for(images, "harmonizer.weight=0.5"), tmp_path / "branch", branch=begun.path)
    assert told == [None, None]
    begun = RunDir(train(recipe_for(images), tmp_path / "once"))
    run = RunDir(train(recipe_for(images, "harmonizer.weight=0.5"), tmp_path / "other", branch=begun.path))
    assert run.read_groups() == begun.read_groups()
    with pytest.raises(InputError, match="begun with near_duplicates=once, and each"):
        train(recipe_for(images, "near_duplicates=each"), tmp_path / "no", branch=begun.path)


def test_each_image_can_count_for_itself(
    tmp_path: Path, told: list[Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fingerprints, "see", None)  # nobody looks
    run = RunDir(train(recipe_for(save_takes(tmp_path / "images"), "near_duplicates=each"), tmp_path / "run"))
    assert told == [None]
    assert run.read_groups() is None
    assert len(run.read_images()) == len(WEIGHTS)


def test_without_a_harmonizer_nobody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fingerprints, "see", None)
    run = RunDir(train(recipe_for(save_takes(tmp_path / "images"), arm="base"), tmp_path / "run"))
    assert run.read_groups() is None
    assert run.read_recipe()["near_duplicates"] == "once", "the arms of a comparison differ in nothing else"


def test_a_column_of_the_users_own_wins(
    tmp_path: Path, told: list[Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fingerprints, "see", None)
    monkeypatch.setattr(FileSource, "groups", lambda self: torch.arange(len(self)) % 4)
    images = save_takes(tmp_path / "images")
    (images / "scene00-1.png").write_bytes(b"no picture")
    run = RunDir(train(recipe_for(images), tmp_path / "run"))
    groups = [i % 4 for i in range(len(WEIGHTS)) if i != 1]
    assert run.read_groups() == groups, "and follows the images that can be read"
    assert told[0] is not None
    assert told[0].tolist() == pytest.approx([1 / groups.count(group) for group in groups])
    told.clear()
    train(recipe_for(images, "near_duplicates=each"), tmp_path / "each")
    assert told == [None]


def test_what_cannot_be_read_or_was_not_chosen_is_in_no_burst(tmp_path: Path, told: list[Tensor | None]) -> None:
    images = save_takes(tmp_path / "images")
    (images / "scene00-2.png").write_bytes(b"no picture")
    lines = tmp_path / "list.txt"
    chosen = sorted((file.name for file in images.iterdir() if file.name != "scene00-0.png"), reverse=True)
    lines.write_text("\n".join(chosen))
    run = RunDir(train(recipe_for(images, f"images={lines}"), tmp_path / "run"))
    readable = [name for name in chosen if name != "scene00-2.png"]
    assert run.read_images() == readable
    assert told[0] is not None
    assert dict(zip(readable, told[0].tolist(), strict=True)) == pytest.approx(
        {name: {"00": 1 / 3, "02": 1 / 3}.get(name[5:7], 1.0) for name in readable}
    )


def test_named_data_sets_are_taken_as_they_are_unless_asked(tmp_path: Path, told: list[Tensor | None]) -> None:
    fast = ["epochs=1", "backbone.width=4", "harmonizer.warm_up=2 steps", "monitor=knn"]
    run = RunDir(train(get_recipe("digits-lt").set(fast), tmp_path / "run"))
    assert told == [None]
    assert not run.images_file.exists()
    assert run.read_recipe()["near_duplicates"] == "each"
    told.clear()
    once = RunDir(train(get_recipe("digits-lt").set([*fast, "near_duplicates=once"]), tmp_path / "once"))
    groups = once.read_groups()
    assert groups is not None
    assert told[0] is not None
    assert len(set(groups)) < len(groups) == len(told[0])
    assert float(told[0].sum()) == pytest.approx(len(set(groups)))
    once.encoder_file.unlink()
    train(get_recipe("digits-lt").set([*fast, "near_duplicates=once"]), once.path, resume=True)
    assert told[1] is not None
    assert told[1].equal(told[0])


def test_what_cannot_be_looked_at_counts_each_image(
    tmp_path: Path, told: list[Tensor | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with images that are read as they come."""
    images = save_takes(tmp_path / "images")
    monkeypatch.setattr(storing, "scan", lambda *_: [])
    run = RunDir(train(recipe_for(images), tmp_path / "run"))
    assert told == [None]
    assert run.read_recipe()["near_duplicates"] == "each"
    with pytest.raises(InputError, match=r"near_duplicates=once was given, but .* cannot be looked at"):
        train(recipe_for(images, "near_duplicates=once"), tmp_path / "once")
    assert not (tmp_path / "once").exists()


def test_stages_weigh_the_images_they_see(tmp_path: Path, told: list[Tensor | None]) -> None:
    images = save_takes(tmp_path / "images")
    settings = ["epochs=4", "stages=dnc", "stages.clusters=2", "stages.base=1 epochs", "stages.experts=2 epochs"]
    run = RunDir(train(recipe_for(images, *settings), tmp_path / "run"))
    assert run.read_recipe()["near_duplicates"] == "once"
    assert run.read_groups() == [scene for scene, takes in enumerate(TAKES) for _ in range(takes)]
    base, *experts, distilling = told
    assert base is not None
    for expert, weights in zip(sorted(run.stages.glob("*-expert-*")), experts, strict=True):
        groups = RunDir(expert).read_groups()
        assert groups is not None
        assert weights is not None
        assert weights.tolist() == pytest.approx([1 / groups.count(group) for group in groups])
    assert distilling is None


def test_recipes_of_before_the_choice_counted_each_image() -> None:
    content = get_recipe("folder").to_json()
    assert content.pop("near_duplicates") == "auto"
    assert Recipe.from_json(content).near_duplicates == "each"


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'once'"):
        get_recipe("folder").set(["near_duplicates=onc"])


def test_groups_that_do_not_fit_the_images_are_damage(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_json(run.images_file, {"images": ["a", "b"], "groups": [0]})
    with pytest.raises(InputError, match="damaged"):
        run.read_groups()
