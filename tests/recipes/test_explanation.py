"""What is chosen for a user, and why: the same that a run writes down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evensphere.cli.main import main
from evensphere.errors import InputError
from evensphere.recipes.explanation import explain
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import resolve, train
from evensphere.rundir import RunDir


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.RandomState(0)
    for i in range(200):
        Image.fromarray(noise.randint(0, 256, (40, 50), dtype=np.uint8)).save(folder / f"{i:03}.png")
    return folder


def recipe_for(photos: Path, *settings: str, arm: str = "gh") -> Recipe:
    small = ("backbone=resnet-small", "backbone.width=4", "backbone.stages=2", "epochs=2")
    return with_data(get_recipe("folder", arm), str(photos)).set([*small, *settings])


def test_every_choice_left_open_has_its_value_and_a_reason(photos: Path) -> None:
    recipe = recipe_for(photos)
    chosen = {choice.setting: choice for choice in explain(recipe)}
    values = {setting: choice.value for setting, choice in chosen.items()}
    assert values["batch_size"] == "16"
    assert values["views.size"] == "32"
    assert values["harmonizer.anchors"] == "4"
    assert float(values["schedule.learning_rate"]) == pytest.approx(0.5 * 16 / 512)
    assert chosen["batch_size"].why == "1/16 of 200 images, as a power of two from 16 to 512"
    assert chosen["views.size"].why.startswith("the median short side of 64 images is 40")
    assert chosen["epochs"].why.startswith("26 steps, 13 in each epoch of 200 images")
    assert chosen["harmonizer.warm_up"].why.startswith("GH acts from step 13 of 26, fully from ")
    assert chosen["harmonizer.queue"].why.startswith("4.0 images to a region")
    assert all(choice.why for choice in chosen.values())


def test_what_is_explained_is_what_a_run_writes_down(photos: Path, tmp_path: Path) -> None:
    recipe = recipe_for(photos)
    written = RunDir(train(recipe, tmp_path / "run")).read_recipe()
    said = resolve(recipe).to_json()
    assert said.pop("storage") == "auto", "which the look at all images decides"
    assert said.pop("near_duplicates") == "auto"
    assert {name: written[name] for name in said} == said
    assert written["resolved"]["because"]["batch_size"].startswith("1/16 of 200 images")


def test_what_the_user_says_needs_no_reason(photos: Path) -> None:
    settings = [
        *("batch_size=20", "schedule.learning_rate=0.1", "schedule.middle=0.05", "harmonizer.anchors=7"),
        *("precision=32-true", "views.size=24", "views.mean=[0.5]", "views.std=[0.5]", "views.jitter=[0.4,0.4,0,0]"),
        "views.gray=0",
    ]
    chosen = {choice.setting for choice in explain(recipe_for(photos, *settings))}
    assert not chosen & {setting.partition("=")[0] for setting in settings}


def test_a_length_left_open_has_its_reason_beside_its_steps(photos: Path) -> None:
    (length,) = [choice for choice in explain(recipe_for(photos, "epochs=auto")) if choice.setting == "epochs"]
    assert length.value == "1000"
    assert "200 images are to be seen about 2,000,000 times" in length.why
    assert "13,000 steps, 13 in each epoch" in length.why


def test_an_arm_without_gh_says_so(photos: Path) -> None:
    assert explain(recipe_for(photos, arm="base"))[-1][:2] == ("harmonizer", "none")


def test_a_recipe_that_leaves_nothing_open_is_explained_too() -> None:
    chosen = {choice.setting for choice in explain(get_recipe("digits-lt").set(["precision=32-true"]))}
    assert {"epochs", "harmonizer.warm_up", "harmonizer.queue"} <= chosen


def test_the_command_trains_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["evensphere", "train", "folder", "--data", str(photos), "--out", str(out), "--explain"]
        )
        with pytest.raises(SystemExit) as end:
            main()
    assert end.value.code in (0, None)
    assert "1/16 of 200 images" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not out.exists()


def test_data_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        explain(recipe_for(tmp_path / "nowhere"))
