"""Who may be compared, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compare.fake_arms import scored_run
from tests.report.fake_runs import with_images

from evensphere.compare.sides import two_sides
from evensphere.errors import InputError

NONE = {"name": "none", "options": {}}


def run(tmp_path: Path, name: str, arm: str = "gh", seed: int = 0, **recipe: object) -> Path:
    return scored_run(tmp_path / name, arm, seed, [], **recipe)  # type: ignore[arg-type]


def test_what_differs_is_said_and_how_a_run_was_watched_is_not(tmp_path: Path) -> None:
    a = run(tmp_path, "a", monitor=["knn"], checkpoint_every="1 epochs", workers=3)
    b = run(tmp_path, "b", "base")
    assert two_sides([a, b]).differing == {"harmonizer.name": ("gh", "none")}
    assert two_sides([a, b]).cautions == []


def test_a_learning_rate_that_comes_along_is_a_caution(tmp_path: Path) -> None:
    a = run(tmp_path, "a", schedule={"name": "two-stage", "options": {}})
    b = run(tmp_path, "b", "base", schedule={"name": "plain", "options": {}})
    (caution,) = two_sides([a, b]).cautions
    assert "two-stage" in caution
    c = run(tmp_path, "c", schedule={"name": "plain", "options": {}})
    assert two_sides([a, c]).cautions == [], "here it is what is compared"


def test_other_data_and_another_method_at_once_are_refused(tmp_path: Path) -> None:
    balanced = {"name": "digits", "options": {"imbalance": 1}}
    a, b = run(tmp_path, "a", data=balanced), run(tmp_path, "b", "base")
    with pytest.raises(InputError, match=r"different images \(data.imbalance 1 and None\).*differ in harmonizer"):
        two_sides([a, b])
    c = run(tmp_path, "c")
    (caution,) = two_sides([a, c]).cautions
    assert "the data is what is compared" in caution


def test_where_images_were_kept_is_no_second_difference(tmp_path: Path) -> None:
    balanced = {"name": "digits", "options": {"imbalance": 1}}
    a = with_images(run(tmp_path, "a", data=balanced, storage="files"), "1.png")
    b = run(tmp_path, "b", storage="memory")
    cautions = two_sides([a, b]).cautions
    assert "the data is what is compared" in cautions[0]
    assert "decoded its images once" in cautions[1]


def test_data_that_lies_elsewhere_is_the_same_data(tmp_path: Path) -> None:
    here = {"name": "folder", "options": {"path": "here"}}
    a, b = run(tmp_path, "a", data=here), run(tmp_path, "b", "base", data={**here, "options": {"path": "there"}})
    assert two_sides([a, b]).cautions == []
    with_images(a, "1.png", "2.png")
    with_images(b, "1.png", "3.png")
    with pytest.raises(InputError, match="other files"):
        two_sides([a, b])


def test_other_images_in_a_folder_of_the_same_name_are_what_is_compared(tmp_path: Path) -> None:
    paths = ("/data/cats/train", "/data/dogs/train")
    a, b = (run(tmp_path, path[6:9], data={"name": "folder", "options": {"path": path}}) for path in paths)
    with_images(a, "tom.jpg")
    with_images(b, "rex.jpg")
    assert two_sides([a, b]).cautions == ["pretrained on different images (other files): the data is what is compared"]


def test_images_that_a_seed_drew_are_no_other_data(tmp_path: Path) -> None:
    def drawn(name: str, arm: str, seed: int) -> Path:
        data = {"name": "flowers102", "options": {"imbalance": 100, "seed": seed}}
        return with_images(run(tmp_path, name, arm, seed, data=data), f"{seed}.jpg")

    sides = two_sides([drawn("a0", "gh", 0), drawn("a1", "gh", 1), drawn("b1", "base", 1)])
    assert sides.cautions == ["without a partner and left out: seed 0"]


def test_arrays_of_an_older_version_were_in_memory_too(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a", storage="memory"), run(tmp_path, "b", "base")
    assert two_sides([a, b]).differing == {"harmonizer.name": ("gh", "none")}


def test_one_arm_or_three_are_refused(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a"), run(tmp_path, "b", seed=1)
    with pytest.raises(InputError, match="nothing but their seed"):
        two_sides([a, b])
    others = [run(tmp_path, "c", "base"), run(tmp_path, "d", "base", method={"name": "byol", "options": {}})]
    with pytest.raises(InputError, match="of 3 arms"):
        two_sides([a, *others])
    with pytest.raises(InputError, match="two or more"):
        two_sides([a])


def test_a_run_given_for_the_wrong_side_is_refused(tmp_path: Path) -> None:
    a, b, stranger = run(tmp_path, "a"), run(tmp_path, "b", "base"), run(tmp_path, "c", "base", seed=1)
    with pytest.raises(InputError, match="c was given for --a, but it is no run of its arm"):
        two_sides([], [a, stranger], [b])
    assert two_sides([], [b], [a]).names == ("without GH", "with GH")


def test_seeds_without_a_partner(tmp_path: Path) -> None:
    gh = [run(tmp_path, f"gh{seed}", seed=seed) for seed in (0, 1)]
    base = [run(tmp_path, f"base{seed}", "base", seed=seed) for seed in (1, 5)]
    sides = two_sides([*gh, *base])
    assert (sides.seeds, sides.cautions) == ([1], ["without a partner and left out: seed 0 and 5"])
    (caution,) = two_sides([gh[0], base[1]]).cautions
    assert "the seeds differ, 0 and 5" in caution
    with pytest.raises(InputError, match="no seed in common"):
        two_sides([*gh, base[1]])


def test_a_damaged_recipe_is_one_sentence(tmp_path: Path) -> None:
    a, b = run(tmp_path, "a"), run(tmp_path, "b", "base")
    (b / "recipe.json").write_text('{"arm": "gh"}')
    with pytest.raises(InputError, match=r"b cannot be compared: recipe\.json has no usable name"):
        two_sides([a, b])
