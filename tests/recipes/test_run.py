"""Runs from beginning to end, and every way to begin one wrongly."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor

from evensphere.data.source import ArraySource
from evensphere.engine import sam
from evensphere.engine.checkpoint import read_checkpoint
from evensphere.engine.sam import density_weights
from evensphere.errors import InputError, TrainingStopped
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data, with_sizes
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

TINY = ["epochs=4", "backbone.width=8", "batch_size=64", "evaluate_every=2 epochs"]


def tiny(arm: str = "gh", *settings: str) -> Recipe:
    return get_recipe("digits-lt", arm).set([*TINY, *settings])


def save_digits(folder: Path, count: int = 40, side: int = 20, classes: int = 3) -> Path:
    """Pictures of digits in class folders."""
    digits = load_digits(n_class=classes)
    for i in range(count):
        target = folder / f"class{digits.target[i]}" / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype("uint8")).resize((side, side)).save(target)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(tiny(), tmp_path_factory.mktemp("runs") / "gh"))


def test_a_run_leaves_everything_it_promises(finished: RunDir) -> None:
    recipe = finished.read_recipe()
    resolved = recipe["resolved"]
    assert resolved["num_images"] == 383
    assert resolved["steps_per_epoch"] == 6, "five full batches and a partial one"
    assert resolved["total_steps"] == 24
    assert resolved["warm_up_steps"] == 12
    assert resolved["anchors"] == 7, "K follows from 383 images"
    assert finished.encoder_file.exists()
    assert json.loads(finished.environment_file.read_text())["packages"]["torch"]
    events = finished.read_metrics()
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(24))
    assert [event["epoch"] for event in events if event["event"] == "evaluation"] == [1, 3]
    harmonized = [event["gh"] > 0 for event in events if event["event"] == "step"]
    assert harmonized == [False] * 12 + [True] * 12
    priors = [event["prior"] for event in events if event["event"] == "population"]
    assert priors
    assert all(sum(prior) == pytest.approx(1, abs=1e-5) for prior in priors)


def test_a_warm_up_that_ends_within_an_epoch_logs_its_pi_too(tmp_path: Path) -> None:
    run = RunDir(train(tiny("gh", "epochs=1"), tmp_path / "run"))
    assert run.read_recipe()["resolved"]["warm_up_steps"] == 3
    priors = [(event["step"], event["prior"]) for event in run.read_metrics() if event["event"] == "population"]
    assert priors == [(2, read_checkpoint(run, 6)["model"]["harmonizer.prior"].tolist())]


def test_the_recipe_can_be_read_back(finished: RunDir) -> None:
    recipe = Recipe.from_json(finished.read_recipe())
    assert recipe.to_json() == finished.read_recipe()


def test_evaluation_reports_groups_and_beats_the_untrained_encoder(tmp_path: Path) -> None:
    run = train(get_recipe("digits-lt").set(["epochs=40", "backbone.width=16"]), tmp_path / "run")
    results = evaluate(run)
    assert results == json.loads((run / "eval.json").read_text())
    assert results["knn"]["average"] > results["knn_untrained"]["average"] + 3
    for name in ("knn", "probe", "knn_untrained"):
        scores = results[name]
        assert set(scores) >= {"many", "medium", "few", "std", "std_sample", "average", "per_class"}
        assert scores["test_images"] == {"many": 160, "medium": 120, "few": 120}
    assert len(results["classes"]) == len(results["train_counts"]) == len(results["groups"]) == 10


def test_more_metrics_join_those_already_there(finished: RunDir, tmp_path: Path) -> None:
    evaluate(finished.path, metrics=["knn"])
    results = evaluate(finished.path, metrics=["probe"])
    assert {"knn", "probe", "knn_untrained"} <= set(results)
    elsewhere = tmp_path_labelled(tmp_path)
    on_other_images = evaluate(finished.path, data=elsewhere, metrics=["knn"])
    assert "probe" not in on_other_images
    assert on_other_images["classes"] == ["class0", "class1", "class2"], "files are read as grey, like the digits were"


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(finished: RunDir, tmp_path: Path) -> None:
    again = RunDir(train(tiny(), tmp_path / "again"))
    other = RunDir(train(tiny("gh", "seed=1"), tmp_path / "other"))
    assert again.metrics_file.read_bytes() == finished.metrics_file.read_bytes()
    assert again.encoder_file.read_bytes() == finished.encoder_file.read_bytes()
    assert other.metrics_file.read_bytes() != finished.metrics_file.read_bytes()


def test_in_the_warm_up_gh_changes_nothing(finished: RunDir, tmp_path: Path) -> None:
    """The two-stage arm is the exact control: the same run until GH acts, another one afterwards."""
    control = RunDir(train(tiny("two-stage"), tmp_path / "control"))
    losses = [
        [event["loss"] for event in run.read_metrics() if event["event"] == "step"] for run in (finished, control)
    ]
    assert losses[0][:12] == losses[1][:12]
    assert losses[0][12] != losses[1][12]


def test_bcl_is_simclr_in_its_first_epoch_and_asks_for_stronger_views_afterwards(tmp_path: Path) -> None:
    losses = {}
    for method in ("simclr", "bcl"):
        run = RunDir(train(tiny("base", f"method={method}", "epochs=2"), tmp_path / method))
        losses[method] = [event["loss"] for event in run.read_metrics() if event["event"] == "step"]
    assert losses["bcl"][:6] == losses["simclr"][:6]
    assert all(bcl != simclr for bcl, simclr in zip(losses["bcl"][6:], losses["simclr"][6:], strict=True))
    elsewhere = evaluate(tmp_path / "bcl", data=tmp_path_labelled(tmp_path), metrics=["knn"])
    assert "knn" in elsewhere, "a method with a row per image is rebuilt for other images too"


@pytest.mark.parametrize("side", [32, 96])
def test_a_vit_is_made_for_the_size_of_the_views(side: int, tmp_path: Path) -> None:
    settings = ["epochs=1", f"views.size={side}", "backbone=timm/vit_tiny_patch16_224", "backbone.depth=1"]
    small = ["backbone.embed_dim=24", "method.embedding_dim=16", "batch_size=128"]
    run = train(get_recipe("digits-lt", "base").set([*settings, *small]), tmp_path / "run")
    assert "knn" in evaluate(run, metrics=["knn"])


def test_rwsam_weighs_rare_classes_more(finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the features of a first stage alone; the labels come in here, to check."""
    weights: list[Tensor] = []

    def spy(features: Tensor, bandwidth: float, power: float) -> Tensor:
        weights.append(density_weights(features, bandwidth, power))
        return weights[0]

    monkeypatch.setattr(sam, "density_weights", spy)
    settings = ["optimizer=rwsam", f"optimizer.pretrained={finished.path}", "schedule.learning_rate=0.05"]
    train(tiny("base", *settings, "epochs=1"), tmp_path / "run")
    splits = build("data", get_recipe("digits-lt").data)
    counts, labels = torch.tensor(splits.train_counts()), splits.pretrain.labels()
    order = counts.argsort()
    rare, common = (weights[0][torch.isin(labels, order[part])].mean() for part in (slice(3), slice(-3, None)))
    assert rare > 1.3 * common


def test_a_folder_with_dirt_trains_and_lists_it(tmp_path: Path) -> None:
    images = save_digits(tmp_path / "images", count=60)
    for i in range(10):
        (images / f"class{i % 3}" / f"broken{i}.jpg").write_bytes(os.urandom(50 * i))
    recipe = with_data(get_recipe("folder"), str(images)).set(["epochs=2", "workers=2", "backbone.width=8"])
    run = RunDir(train(recipe, tmp_path / "run"))
    assert len(run.read_skipped()) == 10
    assert all(path.split("/")[1].startswith("broken") and reason for path, reason in run.read_skipped())
    resolved = Recipe.from_json(run.read_recipe())
    assert resolved.resolved["num_images"] == 60
    assert resolved.views.options["size"] == 32
    assert resolved.backbone.options["stem"] == "cifar"
    assert resolved.batch_size == 16
    assert resolved.schedule.options["learning_rate"] == pytest.approx(0.5 * 16 / 512)
    assert evaluate(run.path)["classes"] == ["class0", "class1", "class2"]


def test_a_flat_folder_needs_no_labels(tmp_path: Path) -> None:
    images = tmp_path / "flat"
    images.mkdir()
    for file in save_digits(tmp_path / "nested").rglob("*.png"):
        file.rename(images / file.name)
    recipe = with_data(get_recipe("folder"), str(images)).set(["epochs=1", "workers=0", "backbone.width=4"])
    run = train(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="no labels"):
        evaluate(run)
    assert "probe" in evaluate(run, data=tmp_path_labelled(tmp_path))


def tmp_path_labelled(tmp_path: Path) -> Path:
    return save_digits(tmp_path / "labelled", count=30)


@pytest.mark.parametrize("files", [False, True])
def test_a_run_with_multi_crop(tmp_path: Path, files: bool) -> None:
    """Local views make other encoders of the same seed, whether cropped on the device or by workers."""
    recipe = with_data(get_recipe("folder"), str(save_digits(tmp_path / "images"))) if files else tiny("gh", "epochs=2")
    settings = ["method=dino", "epochs=2", "views.size=8", "backbone=resnet-small", "backbone.width=4"]
    recipe = recipe.set([*settings, "backbone.stages=2", "method.hidden=16", "method.outputs=32"])
    runs = [
        RunDir(train(recipe.set([f"views.local_views={count}", "workers=0"]), tmp_path / str(count)))
        for count in (0, 3)
    ]
    assert runs[0].encoder_file.read_bytes() != runs[1].encoder_file.read_bytes()
    assert all(event["gh"] > 0 for event in runs[1].read_metrics() if event["event"] == "step" and event["epoch"] == 1)


def test_a_run_in_half_precision_learns(tmp_path: Path) -> None:
    run = RunDir(train(tiny("gh", "precision=bf16-mixed"), tmp_path / "run"))
    losses = [event["ssl"] for event in run.read_metrics() if event["event"] == "step"]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_a_loss_that_is_no_number_stops_the_run_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"at step \d+ .* learning rate"):
        train(tiny("base", "schedule.learning_rate=1e30", "schedule.warm_up=0.0"), tmp_path / "run")
    events = RunDir(tmp_path / "run").read_metrics()
    assert events[-1]["event"] == "stopped"


# --- mistakes: one sentence, and nothing written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["harmonizer.anchors=1"], "at least 2"),
        (["data.imbalance=0"], "imbalance"),
        (["batch_size=1"], "from 2 to"),
        (["epochs=0"], "from 1 to"),
        (["micro_batches=0"], "from 1 to"),
        (["batch_size=32", "micro_batches=17"], "give at most 16"),
        (["compile=true", "micro_batches=2"], "one excludes the other"),
        (["method=simlcr"], "did you mean 'simclr'"),
        (["method.temperatur=0.1"], "did you mean 'temperature'"),
        (["method.temperature=cold"], "not a temperature"),
        (["method.temperature=0"], "above 0"),
        (["backbone=timm/resnet1800"], "timm model"),
        (["backbone=timm/vit_tiny_patch16_224"], "8 x 8 pixels"),
        (
            ["method=dino", "backbone=timm/vit_tiny_patch16_224", "views.size=32", "views.local_views=2"],
            "32 x 32 and 14 x 14 pixels",
        ),
        (["backbone=wide-resnet", "backbone.depth=18"], "6n"),
        (["harmonizer.warm_up=soon"], "not a duration"),
        (["schedule.stage_change=1.5"], "not a duration"),
        (["precision=7bit"], "precision"),
        (["evaluate_every=never"], "not a duration"),
        (["views.size=1"], "from 2 to"),
        (["optimizer=rwsam"], "needs its pretrained; give --set optimizer.pretrained"),
        (["optimizer=rwsam", "optimizer.pretrained=nowhere"], "nowhere"),
        (["optimizer=asam", "optimizer.rho=0"], "rho = 0"),
        (["views.local_views=2"], "no use of local views"),
        (["views.num_views=3"], "simclr compares 2"),
        (["views.num_views=1", "method=swav"], "swav compares 2 or more"),
        (["nonsense"], "NAME=VALUE"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(tmp_path: Path, settings: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        train(get_recipe("digits-lt").set(settings), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["missing", "empty", "one image", "file"])
def test_folders_without_enough_images_are_refused(tmp_path: Path, kind: str) -> None:
    images = tmp_path / "images"
    if kind == "file":
        images.write_text("not a folder")
    elif kind != "missing":
        images.mkdir()
    if kind == "one image":
        Image.new("RGB", (32, 32)).save(images / "only.png")
    with pytest.raises(InputError):
        train(with_data(get_recipe("folder"), str(images)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="choose another --out"):
        train(tiny(), tmp_path / "file" / "run")


def test_weights_of_images_need_a_loss_of_images(finished: RunDir, tmp_path: Path) -> None:
    settings = ["method=barlow", "optimizer=rwsam", f"optimizer.pretrained={finished.path}"]
    with pytest.raises(InputError, match="the loss of the method barlow is not made of one for each image"):
        train(tiny("base", *settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten(finished: RunDir) -> None:
    before = finished.recipe_file.read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        train(tiny(), finished.path)
    assert finished.recipe_file.read_bytes() == before


@pytest.mark.parametrize("settings", [["epochs=5"], ["method.temperature=0.1"], ["seed=1"], ["harmonizer=none"]])
def test_a_run_is_not_resumed_with_other_settings(finished: RunDir, settings: list[str]) -> None:
    with pytest.raises(InputError, match="was begun with"):
        train(tiny("gh", *settings), finished.path, resume=True)


def test_images_may_move_between_stop_and_resume(tmp_path: Path) -> None:
    images = save_digits(tmp_path / "images", count=40)
    settings = ["epochs=2", "workers=0", "backbone.width=4"]
    run = RunDir(train(with_data(get_recipe("folder"), str(images)).set(settings), tmp_path / "run"))
    weights = run.encoder_file.read_bytes()
    run.encoder_file.unlink()
    moved = images.rename(tmp_path / "elsewhere")
    (moved / "class0" / "a new one.png").write_bytes((moved / "class0" / "0.png").read_bytes())
    train(with_data(get_recipe("folder"), str(moved)).set(settings), run.path, resume=True)
    assert run.encoder_file.read_bytes() == weights, "and a new image is left out"
    run.encoder_file.unlink()
    (moved / "class0" / "0.png").unlink()
    with pytest.raises(InputError, match="are gone"):
        train(with_data(get_recipe("folder"), str(moved)).set(settings), run.path, resume=True)


def test_a_run_in_use_is_refused(finished: RunDir) -> None:
    refused: list[InputError] = []

    def second() -> None:
        try:
            finished.lock()
        except InputError as error:
            refused.append(error)

    with finished.lock():
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert "in use" in str(refused[0])


def test_sizes_follow_from_the_data() -> None:
    source = ArraySource("zeros", torch.zeros(5000, 1, 80, 100, dtype=torch.uint8))
    recipe = get_recipe("folder")
    sized = with_sizes(recipe, source)
    assert (sized.views.options["size"], sized.batch_size, sized.backbone.options["stem"]) == (80, 256, "imagenet")
    assert sized.schedule.options["learning_rate"] == pytest.approx(0.25)
    assert sized.schedule.options["middle"] == pytest.approx(0.15)
    for optimizer, rate in (("lars", 0.3), ("adamw", 5e-4)):
        options = with_sizes(recipe.set([f"optimizer={optimizer}"]), source).schedule.options
        assert (options["learning_rate"], options["middle"]) == pytest.approx((rate, 0.6 * rate))
    given = with_sizes(recipe.set(["schedule.learning_rate=0.1"]), source).schedule.options
    assert (given["learning_rate"], given["middle"]) == pytest.approx((0.1, 0.06))
    assert recipe.batch_size == "auto", "a recipe is never changed in place"


@pytest.mark.parametrize(
    ("part", "option"),
    [
        ("backbone=resnet50", "backbone.stem"),
        ("schedule=plain", "schedule.learning_rate"),
        ("schedule=two-stage", "schedule.middle"),
        ("views=photos-asymmetric", "views.size"),
    ],
)
def test_another_part_leaves_to_the_data_what_the_first_one_left(part: str, option: str) -> None:
    source = ArraySource("zeros", torch.zeros(5000, 1, 80, 100, dtype=torch.uint8))
    recipe, (kind, name) = get_recipe("folder").set([part]), option.split(".")
    assert getattr(recipe, kind).options[name] == "auto"
    assert getattr(with_sizes(recipe, source), kind).options[name] in ("imagenet", 0.25, 0.15, 80)
    if kind == "schedule":
        arms = [get_recipe("folder", arm).set([part]).schedule for arm in ("base", "gh")]
        assert arms[0].options == arms[1].options, "whichever arm was changed"


def test_a_machine_without_git_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert RunDir(train(tiny(), tmp_path / "run")).read_environment()["revision"] is None


def test_a_wish_that_could_not_be_fulfilled_is_no_obstacle_to_going_on(tmp_path: Path) -> None:
    recipe = tiny().set(["storage=cache"])  # of an array, which is in memory already
    run = RunDir(train(recipe, tmp_path / "run"))
    assert run.read_recipe()["storage"] == "memory"
    run.encoder_file.unlink()
    train(recipe, run.path, resume=True)
    assert run.encoder_file.exists()
    with pytest.raises(InputError, match="storage=memory, and files was given"):
        train(recipe.set(["storage=files"]), run.path, resume=True)


def test_no_metric_is_one_sentence(finished: RunDir, tmp_path: Path) -> None:
    run = train(tiny().set(["metrics="]), tmp_path / "run")
    with pytest.raises(InputError, match="No metric"):
        evaluate(run)


def test_training_does_not_depend_on_the_global_generator(tmp_path: Path, finished: RunDir) -> None:
    torch.manual_seed(123)
    np.random.seed(5)
    again = RunDir(train(tiny(), tmp_path / "again"))
    assert again.encoder_file.read_bytes() == finished.encoder_file.read_bytes()
