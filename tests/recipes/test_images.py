"""Training on a list of images."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.test_run import save_digits

from evensphere.data.digits import digits
from evensphere.data.source import Splits
from evensphere.engine import evaluate as evaluation
from evensphere.errors import InputError
from evensphere.recipes import building, images
from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir


def tiny(*settings: str) -> Recipe:
    return get_recipe("digits-lt").set(["epochs=2", "backbone.width=4", "monitor=knn", *settings])


def test_a_list_in_lines_or_of_another_run(tmp_path: Path) -> None:
    """100 images of a data set in memory, in an order of one's own; RUN/images.json is such a list too."""
    source = digits(imbalance=20).pretrain
    chosen = [source.location(i) for i in range(2, 202, 2)][::-1]
    lines = tmp_path / "list.txt"
    lines.write_text("\n".join(chosen))
    first = RunDir(train(tiny(f"images={lines}"), tmp_path / "first"))
    assert first.read_images() == chosen
    assert first.read_recipe()["resolved"]["num_images"] == 100
    second = RunDir(train(tiny(f"images={first.images_file}"), tmp_path / "second"))
    assert second.encoder_file.read_bytes() == first.encoder_file.read_bytes()

    weights = first.encoder_file.read_bytes()
    lines.unlink()
    for file in (first.encoder_file, first.checkpoint_file(first.checkpoint_steps()[-1])):
        file.unlink()
    train(tiny(f"images={lines}"), first.path, resume=True)
    assert first.encoder_file.read_bytes() == weights, "a run goes on with the images it was begun with"


def test_many_and_few_stay_those_of_the_whole_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it trains, and afterwards, a run on some images is scored like a run on all."""
    splits, monitor, scored = digits(imbalance=20), evaluation.validation_monitor, []

    def seeing(given: Splits, *rest: Any) -> Any:
        scored.append(given.train_counts())
        return monitor(given, *rest)

    monkeypatch.setattr(building, "validation_monitor", seeing)
    lines = tmp_path / "list.txt"
    lines.write_text("\n".join(splits.pretrain.location(i) for i in range(20)))
    run = train(tiny(f"images={lines}"), tmp_path / "run")
    assert scored == [splits.train_counts()]
    assert evaluate(run, metrics=["knn"])["train_counts"] == splits.train_counts()


def test_a_list_of_files(tmp_path: Path) -> None:
    images = save_digits(tmp_path / "images")
    chosen = [f"class{i % 3}/{i}.png" for i in range(40) if (images / f"class{i % 3}" / f"{i}.png").exists()]
    (images / chosen[0]).write_bytes(b"no picture")
    lines = tmp_path / "list.json"
    lines.write_text(json.dumps({"images": chosen}))
    settings = ["epochs=1", "workers=0", "backbone.width=4", f"images={lines}"]
    run = RunDir(train(with_data(get_recipe("folder"), str(images)).set(settings), tmp_path / "run"))
    assert run.read_images() == chosen[1:]
    assert [location for location, _ in run.read_skipped()] == chosen[:1]


def test_several_folders_train_and_are_evaluated_as_one(tmp_path: Path) -> None:
    folders = [str(save_digits(tmp_path / name, count=30)) for name in ("one", "two")]
    settings = ["epochs=1", "workers=0", "backbone.width=4"]
    run = RunDir(train(with_data(get_recipe("folder"), *folders).set(settings), tmp_path / "run"))
    assert len(run.read_images()) == 60
    assert {location.split("/")[0] for location in run.read_images()} == {"one", "two"}
    assert sum(evaluate(run.path, metrics=["knn"])["train_counts"]) == 60
    assert evaluate(run.path, data=folders, metrics=["knn"])["settings"] == {"data": ", ".join(folders)}


def test_a_list_with_labels_and_a_name_in_two_lines(tmp_path: Path) -> None:
    """As `evensphere split` writes it; the labels are for others."""
    images = save_digits(tmp_path / "images")
    chosen = sorted(images.rglob("*.png"))[:20]
    chosen[0] = chosen[0].rename(chosen[0].with_name("two\nlines.png"))
    lines = tmp_path / "list.txt"
    names = [path.relative_to(images).as_posix().replace("\n", r"\x0a") for path in chosen]
    lines.write_text("".join(f"{name} 3\n" for name in names))
    settings = ["epochs=1", "workers=0", "backbone.width=4", f"images={lines}"]
    run = RunDir(train(with_data(get_recipe("folder"), str(images)).set(settings), tmp_path / "run"))
    assert run.read_images() == names
    again = [*settings[:-1], f"images={run.images_file}"]
    copy = RunDir(train(with_data(get_recipe("folder"), str(images)).set(again), tmp_path / "copy"))
    assert copy.encoder_file.read_bytes() == run.encoder_file.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_what_is_skipped_is_written_down_whatever_its_name(tmp_path: Path) -> None:
    images = save_digits(tmp_path / "images")
    for name in (b"\xff.png", b"two\nlines.png", b'=cmd(), "x".png'):
        (images / "class0" / os.fsdecode(name)).write_text("no picture")
    os.mkfifo(images / "class0" / "pipe.png")
    recipe = with_data(get_recipe("folder"), str(images)).set(["epochs=1", "workers=0", "backbone.width=4"])
    skipped = RunDir(train(recipe, tmp_path / "run")).read_skipped()
    assert skipped[0] == ("class0/pipe.png", "neither a file nor a folder")
    names = ['class0/=cmd(), "x".png', r"class0/two\x0alines.png", r"class0/\xff.png"]
    assert skipped[1:] == [(name, "not an image, or of a kind Pillow cannot read") for name in names]


def test_images_that_are_all_gone_at_evaluation_are_one_sentence(tmp_path: Path) -> None:
    run = train(tiny(), tmp_path / "run")
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i % 2}\n" for i in range(10)))
    with pytest.raises(InputError, match=r"No image of .*list\.txt can be read; are the files where"):
        evaluate(run, data=tmp_path / "list.txt", metrics=["knn"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read"),
        ("digits[0]\nnobody\n", "1 of the 2 listed images are not in digits, the first being nobody"),
        ("{0}\n{0}\n{1}\n", "more than once"),
        ("{0}\n", "at least 2"),
        ("", "at least two"),
    ],
)
def test_lists_that_cannot_be_used_are_refused(tmp_path: Path, text: str | None, sentence: str) -> None:
    lines, source = tmp_path / "list.txt", digits(imbalance=20).pretrain
    if text is not None:
        lines.write_text(text.replace("digits[0]", source.location(0)).format(source.location(0), source.location(1)))
    with pytest.raises(InputError, match=sentence):
        train(tiny(f"images={lines}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_leave_to_download_may_be_given_to_a_begun_run() -> None:
    """It changes no image; and what was given once holds until it is taken back."""

    def pets(*settings: str) -> Recipe:
        return with_data(get_recipe("folder"), "hf://somebody/pets").set(["data.revision=main", *settings])

    without, leave, none = pets(), pets("data.download=true"), pets("data.download=false")
    for begun, now, downloads in (
        (without, without, None),
        (without, leave, True),
        (leave, without, True),
        (leave, none, False),
    ):
        assert now.resuming(begun).data.options.get("download") is downloads
        assert now.branching_from(begun).data.options.get("download") is downloads
    with pytest.raises(InputError, match=r"begun with data\.options\.revision=main, and other was given"):
        pets("data.revision=other").resuming(without)


def test_a_begun_run_reads_the_cache_that_it_was_begun_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hub an earlier version took a revision without leave to download, and knew none of them apart."""
    asked: list[dict[str, Any]] = []

    def build(kind: str, data: Part, **known: Any) -> Splits:
        asked.append(data.options)
        return digits()

    monkeypatch.setattr(images, "build", build)
    recipe = with_data(get_recipe("folder"), "hf://a/b").set(["data.revision=main"])
    begun = replace(recipe, resolved={"channels": 3})
    for one in (recipe, begun, begun.set(["data.download=true"]), begun.set(["data.streaming=true"])):
        images.splits_of(one)
    assert ["revision" in options for options in asked] == [True, False, True, True]
