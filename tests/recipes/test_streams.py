"""Runs that learn from a stream: exactly resumable, streaming population statistics, and plain refusals."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_digits
from tests.data.stored import png_files, save_dataset, write_shards

from evensphere.engine import train as engine
from evensphere.errors import InputError
from evensphere.ops.schedule import Progress
from evensphere.recipes.mapping import draw_map
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

# 61 images in batches of 15: four whole ones, and one image that an epoch ends without; GH from the third of four
# epochs; shards of 13
SETTINGS = [
    "epochs=4", "batch_size=15", "workers=0", "checkpoint_every=3 steps", "precision=32-true", "views=cifar",
    "views.size=auto",
    "backbone=resnet-small", "backbone.width=4", "backbone.stages=2", "schedule.learning_rate=0.05",
    "schedule.middle=0.03", "harmonizer.anchors=6", "harmonizer.ramp=1 epoch", "harmonizer.update_every=1 epoch",
    "data.shuffle_buffer=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """61 pictures of two classes in files of different sizes; one of them cannot be read."""
    folder = tmp_path_factory.mktemp("images")
    digits = load_digits(n_class=2)
    for i in range(61):
        side = 32 + i % 7
        picture = Image.fromarray((digits.images[i] * 15).astype("uint8")).resize((side, side + i % 3))
        target = folder / str(digits.target[i]) / f"{i}.png"
        target.parent.mkdir(exist_ok=True)
        picture.save(target)
    (folder / "0" / "0.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def shards(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "shards", png_files(images), per_shard=13)


def recipe_for(shards: Path, *settings: str, arm: str = "gh") -> Recipe:
    mine = [one for one in SETTINGS if arm == "gh" or not one.startswith(("harmonizer", "schedule.middle"))]
    return with_data(get_recipe("folder", arm), str(shards)).set([*mine, *settings])


def said(recipe: Recipe, out: Path, **options: Any) -> str:
    """What a run says on the console."""
    console = Console(file=io.StringIO(), width=200)
    train(recipe, out, console=console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def unbroken(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(recipe_for(shards), tmp_path_factory.mktemp("runs") / "unbroken"))


def test_a_stream_is_mapped_like_files(unbroken: RunDir) -> None:
    content = json.loads(draw_map(unbroken.path).read_text())
    assert content["images"] == 60, "one of 61 cannot be read"
    assert len(content["thumbnails"]) == 60
    assert sum(content["region_images"]) == 60, "by the projector: pi knows no single image"
    assert len(set(content["names"])) == 60
    assert "label" not in content


def test_a_run_on_a_stream_leaves_what_it_promises(unbroken: RunDir, shards: Path, tmp_path: Path) -> None:
    recipe = unbroken.read_recipe()
    assert (recipe["data"]["name"], recipe["views"]["options"]["size"]) == ("shards", 32)
    resolved = recipe["resolved"]
    assert (resolved["num_images"], resolved["steps_per_epoch"]) == (61, 4)
    assert resolved["population"] == "streaming"
    assert not unbroken.images_file.exists(), "a stream's images have no numbers"
    (skipped,) = unbroken.read_skipped()
    assert skipped[0].startswith("shard-00000")
    assert skipped[0].endswith("/0/0.png")
    steps = [event for event in unbroken.read_metrics() if event["event"] == "step"]
    assert [event["gh"] > 0 for event in steps] == [False] * 8 + [True] * 8
    state = torch.load(unbroken.checkpoint_file(16), weights_only=True)["model"]
    assert state["harmonizer._extra_state"]["population"].keys() == {"average", "mass"}
    out = said(recipe_for(shards, "epochs=1"), tmp_path / "one")
    assert "Population statistics are averaged over the batches (population=streaming)" in out
    assert "1 images could not be read while training; they are listed in" in out


class Stopped(Exception):
    """Instead of a power cut."""


@pytest.mark.parametrize("step", [2, 6, 8, 13])
def test_stopped_and_resumed_equals_never_stopped(
    step: int, unbroken: RunDir, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first epoch before any checkpoint, in the second, at the stage change, in the last: with another number of
    workers, and with shards that have moved."""
    take_step = engine._take_step

    def dying(training: Any, step_module: Any, batch: Any, progress: Progress, fabric: Any) -> dict[str, Any]:
        if progress.step == step:
            raise Stopped
        return take_step(training, step_module, batch, progress, fabric)

    run = RunDir(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_take_step", dying)
        with pytest.raises(Stopped):
            train(recipe_for(shards), run.path)
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)
    train(recipe_for(moved, "workers=2" if step == 6 else "workers=0"), run.path, resume=True)
    assert run.metrics_file.read_bytes() == unbroken.metrics_file.read_bytes()
    assert run.encoder_file.read_bytes() == unbroken.encoder_file.read_bytes()
    assert run.skipped_file.read_bytes() == unbroken.skipped_file.read_bytes()


def test_other_shards_are_not_the_ones_to_resume_with(unbroken: RunDir, shards: Path, tmp_path: Path) -> None:
    run, fewer = tmp_path / "run", tmp_path / "fewer"
    shutil.copytree(unbroken.path, run)
    shutil.copytree(shards, fewer)
    (fewer / "shard-000004.tar").unlink()
    with pytest.raises(InputError, match=r"epochs of 52 images, and .* was begun with 61"):
        train(recipe_for(fewer), run, resume=True)


def test_a_run_with_epochs_of_other_lengths_is_not_gone_on_with(unbroken: RunDir, shards: Path, tmp_path: Path) -> None:
    """An earlier version trained on a stream's last, partial batches too; what is finished is left as it is."""
    run = RunDir(shutil.copytree(unbroken.path, tmp_path / "run"))
    content = run.read_recipe()
    content["resolved"]["steps_per_epoch"] = 5
    run.write_json(run.recipe_file, content)
    assert "nothing to do" in said(recipe_for(shards), run.path, resume=True)
    run.encoder_file.unlink()
    what = r"was begun with epochs of 5 steps, and they have 4 now .*; go on with the images and the version"
    with pytest.raises(InputError, match=what):
        train(recipe_for(shards), run.path, resume=True)
    other = recipe_for(shards, "schedule.middle=0.03", arm="two-stage")
    with pytest.raises(InputError, match=what):
        train(other, tmp_path / "branch", branch=run.path)
    assert not (tmp_path / "branch").exists()


def test_the_arms_share_their_first_stage(unbroken: RunDir, shards: Path, tmp_path: Path) -> None:
    """A branch off a run on a stream is what the other arm would have been on its own."""
    other = recipe_for(shards, "schedule.middle=0.03", arm="two-stage")
    alone = RunDir(train(other, tmp_path / "alone"))
    branch = RunDir(train(other, tmp_path / "branch", branch=unbroken.path))
    assert branch.encoder_file.read_bytes() == alone.encoder_file.read_bytes()


def test_a_branch_with_other_anchors_takes_its_census(unbroken: RunDir, shards: Path, tmp_path: Path) -> None:
    run = RunDir(train(recipe_for(shards, "harmonizer.anchors=5"), tmp_path / "branch", branch=unbroken.path))
    priors = [event["prior"] for event in run.read_metrics() if event["event"] == "population"]
    assert {len(prior) for prior in priors} == {5}


def test_a_broken_shard_is_listed_before_training(shards: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "shards"
    shutil.copytree(shards, damaged)
    whole = (damaged / "shard-000001.tar").read_bytes()
    (damaged / "shard-000001.tar").write_bytes(whole[: len(whole) // 2])
    run = RunDir(train(recipe_for(damaged, "epochs=1"), tmp_path / "run"))
    assert ("shard-000001.tar", "unexpected end of data") in run.read_skipped()
    assert len(run.read_skipped()) == 2


def test_a_saved_data_set_can_be_streamed(images: Path, tmp_path: Path) -> None:
    saved = save_dataset(images, tmp_path / "saved")
    run = RunDir(train(recipe_for(saved, "data.streaming=true", "epochs=1"), tmp_path / "run"))
    assert run.read_recipe()["resolved"]["population"] == "streaming"


def test_a_run_on_a_stream_is_evaluated_with_other_images(unbroken: RunDir, images: Path) -> None:
    with pytest.raises(InputError, match="has no labels to evaluate on; give `evensphere evaluate RUN --data FOLDER`"):
        evaluate(unbroken.path)
    results = evaluate(unbroken.path, data=images, metrics=["knn"])
    assert results["classes"] == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["method=bcl"], "the method bcl"),
        (["harmonizer.population=exact"], "the exact population of the harmonizer"),
        (["stages=dnc"], "a run in stages"),
        (["images={run}/images.json"], "a run on some of the images"),
        (["optimizer=rwsam", "optimizer.pretrained={run}"], "the optimizer rwsam"),
    ],
)
def test_what_needs_numbers_refuses_a_stream_before_anything_is_written(
    settings: list[str], what: str, unbroken: RunDir, shards: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(shards, *(one.format(run=unbroken.path) for one in settings))
    with pytest.raises(InputError, match=f"is a stream, whose images have no numbers, and {what} needs them"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.parametrize("method", ["moco", "nnclr"])
def test_methods_with_memories_of_their_own_take_a_stream(method: str, shards: Path, tmp_path: Path) -> None:
    run = RunDir(train(recipe_for(shards, f"method={method}", "epochs=1"), tmp_path / "run"))
    losses = [event["loss"] for event in run.read_metrics() if event["event"] == "step"]
    assert len(losses) == 4
    assert json.loads(run.recipe_file.read_text())["method"]["name"] == method
