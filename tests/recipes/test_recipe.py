"""Recipes as values: arms, settings, and what is written down."""

from __future__ import annotations

import json

import pytest

from evensphere.errors import InputError
from evensphere.recipes import ARMS, RECIPES
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data, with_length


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("arm", ARMS)
def test_every_recipe_has_every_arm_and_can_be_read_back(name: str, arm: str) -> None:
    recipe = get_recipe(name, arm)
    assert recipe.arm == arm
    written = json.loads(json.dumps(recipe.to_json()))
    assert (written["name"], written["arm"]) == (name, arm)
    assert Recipe.from_json(written) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_arms_differ_in_nothing_but_harmonizer_and_schedule(name: str) -> None:
    written = {arm: get_recipe(name, arm).to_json() for arm in ARMS}
    for field, value in written["gh"].items():
        same = {arm: content[field] == value for arm, content in written.items()}
        assert all(same.values()) or field in ("arm", "harmonizer", "schedule"), field
    assert written["gh"]["schedule"] == written["two-stage"]["schedule"]
    assert written["gh"]["schedule"]["options"]["stage_change"] == written["gh"]["harmonizer"]["options"]["warm_up"]
    assert written["base"]["schedule"]["name"] == "plain"


def test_the_papers_recipe_is_the_papers() -> None:
    recipe = get_recipe("cifar100-lt")
    assert (recipe.epochs, recipe.batch_size) == (1000, 512)
    assert recipe.harmonizer.options["warm_up"] * recipe.epochs == 500
    assert recipe.harmonizer.options["ramp"] * recipe.epochs == 10
    assert recipe.schedule.options["warm_up"] * recipe.epochs == 10
    assert (recipe.schedule.options["learning_rate"], recipe.schedule.options["middle"]) == (0.5, 0.3)
    assert recipe.method.options["temperature"] == 0.2


@pytest.mark.parametrize("name", ["imagenet-lt", "places-lt"])
def test_the_papers_recipes_of_large_sets_are_the_papers(name: str) -> None:
    recipe = get_recipe(name)
    assert (recipe.epochs, recipe.batch_size, recipe.backbone.name) == (500, 256, "resnet50")
    assert recipe.harmonizer.options["warm_up"] * recipe.epochs == 400
    assert recipe.harmonizer.options["ramp"] * recipe.epochs == 30
    assert recipe.harmonizer.options["floor"] == 100
    assert recipe.schedule.options["warm_up"] * recipe.epochs == 10
    assert (recipe.schedule.options["learning_rate"], recipe.schedule.options["middle"]) == (0.5, 0.1)
    assert recipe.optimizer.options == {"momentum": 0.9, "weight_decay": 1e-4}
    assert recipe.data.name == name
    with pytest.raises(InputError, match=f"'{name}' needs its path"):
        build("data", recipe.data)


def test_settings_change_a_copy_with_the_right_types() -> None:
    recipe = get_recipe("digits-lt")
    changed = recipe.set(
        [
            "epochs=3",
            "seed=5",
            "method.temperature=0.3",
            "backbone=timm/resnet18",
            "views.scale=[0.3, 1.0]",
            "harmonizer.warm_up=2 epochs",
            "monitor=knn,probe",
            "data.imbalance=100",
        ]
    )
    assert (changed.epochs, changed.seed, changed.monitor) == (3, 5, ("knn", "probe"))
    assert changed.method == Part("simclr", temperature=0.3)
    assert changed.backbone == Part("timm/resnet18")
    assert changed.views.options["scale"] == [0.3, 1.0]
    assert changed.harmonizer.options["warm_up"] == "2 epochs"
    assert changed.data.options["imbalance"] == 100
    assert recipe == get_recipe("digits-lt")


def test_without_its_harmonizer_the_gh_arm_is_the_control() -> None:
    assert get_recipe("digits-lt").set(["harmonizer=none"]) == get_recipe("digits-lt", "two-stage")


def test_data_is_a_path_or_another_data_set() -> None:
    assert with_data(get_recipe("cifar100-lt"), "/images").data == Part("cifar100", imbalance=100, path="/images")
    assert with_data(get_recipe("cifar100-lt"), "cifar10").data == Part("cifar10")
    assert with_data(get_recipe("cifar100-lt")) == get_recipe("cifar100-lt")


@pytest.mark.parametrize(
    ("path", "kind"), [("x.txt", "list"), ("x.parquet", "table"), ("x.zip", "archive"), ("x/**/*.jpg", "folder")]
)
def test_own_images_are_of_any_kind(path: str, kind: str) -> None:
    recipe = with_data(get_recipe("folder"), path)
    assert recipe.data == Part(kind, path=path)
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    named = with_data(get_recipe("folder").set([f"data={kind}", "data.seed=3"]), path)
    assert named.data == Part(kind, seed=3, path=path), "options of the same kind stay"


def test_several_paths_are_one_collection() -> None:
    assert with_data(get_recipe("folder"), "a", "b").data == Part("folder", path=["a", "b"])
    with pytest.raises(InputError, match=r"a \(of kind folder\) and b\.zip \(of kind archive\) .* paths of one kind"):
        with_data(get_recipe("folder"), "a", "b.zip")
    with pytest.raises(InputError, match=r"data.path = .* was given; it takes"):
        with_data(get_recipe("folder"), "a.zip", "b.zip")


def test_a_data_set_without_its_path_says_which_setting_it_needs() -> None:
    with pytest.raises(InputError, match=r"'places-lt' needs its path; give --set data\.path=PATH"):
        build("data", with_data(get_recipe("folder"), "places-lt").data)
    with pytest.raises(InputError, match=r"'folder' needs its path; give --data PATH"):
        build("data", get_recipe("folder").data)


def test_another_schedule_leaves_its_middle_open_only_with_its_rate() -> None:
    given = get_recipe("folder", "gh").set(["schedule.learning_rate=0.1", "schedule=two-stage"])
    assert "middle" not in given.schedule.options, "as if nobody had left anything open"
    left_open = get_recipe("folder", "base").set(["schedule=two-stage"]).schedule.options
    assert (left_open["learning_rate"], left_open["middle"]) == ("auto", "auto")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("name=mine", "Unknown setting"),
        ("epochs.x=3", "has no options"),
        ("monitor=knnn", "did you mean 'knn'"),
        ("harmonizer.anchor=3", "did you mean 'anchors'"),
        ("harmonizer.anchors=[3]", "a whole number or 'auto'"),
        ("harmonizer.num_samples=3", "Unknown option"),
        ("views.flip=often", "takes a number"),
        ("views.scale=0.3", "a list of a number"),
        ("data=nowhere.module:thing", "cannot be imported"),
        ("precision=64", "known: 32-true"),
    ],
)
def test_wrong_settings_are_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        get_recipe("digits-lt").set([setting])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "epochs"), [(63, 1000), (2000, 1000), (2640, 760), (10_000, 200), (20_001, 100), (1_281_167, 100)]
)
def test_small_collections_are_seen_more_often(images: int, epochs: int) -> None:
    open_length = with_length(get_recipe("folder"), images)
    assert open_length.epochs == epochs
    assert f"{images:,} images" in open_length.resolved["because"]["epochs"]
    said = get_recipe("folder").set(["epochs=7"])
    assert with_length(said, images) == said


def test_parts_of_ones_own_need_no_registration() -> None:
    recipe = get_recipe("digits-lt").set(["method=evensphere.methods.simclr:SimCLR", "method.temperature=0.5"])
    assert recipe.method == Part("evensphere.methods.simclr:SimCLR", temperature=0.5)


def test_an_incomplete_recipe_file_is_one_sentence() -> None:
    with pytest.raises(InputError, match="incomplete"):
        Recipe.from_json({"name": "x"})
