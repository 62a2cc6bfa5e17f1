"""Training on a list of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipes.test_run import save_digits

from evensphere.data.digits import digits
from evensphere.data.source import Splits
from evensphere.engine import evaluate as evaluation
from evensphere.errors import InputError
from evensphere.recipes import run as run_module
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import evaluate, train
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

    monkeypatch.setattr(run_module, "validation_monitor", seeing)
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
