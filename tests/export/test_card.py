"""The model card: what the run says of itself, nothing else, and names as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.export.made_up import RESNET18, made_run, pictures

from evensphere import evaluate, export_encoder, train
from evensphere.export.card import as_text
from evensphere.recipes.recipe import get_recipe, with_data
from evensphere.rundir import RunDir

EVIL = "<img src=x onerror=alert(1)> [a](javascript:alert(2)) `x` | # \x1b[31m"


def card_of(run: RunDir, folder: Path) -> str:
    export_encoder(run.path, "huggingface", folder)
    return (folder / "README.md").read_text()


def test_a_run_that_was_not_evaluated_has_no_results(tmp_path: Path) -> None:
    card = card_of(made_run(tmp_path / "run", *RESNET18), tmp_path / "hf")
    assert str(tmp_path) not in card
    assert "This encoder has not been evaluated." in card
    assert "has not been measured" in card
    assert "%" not in card.partition("## Results")[2]
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: image-feature-extraction\n")


@pytest.mark.slow
def test_the_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    photos = pictures(tmp_path / "photos", count=30)
    small = ["epochs=1", "backbone=timm/resnet10t", "views.size=32", "workers=0", "batch_size=16", "seed=5"]
    run = RunDir(train(with_data(get_recipe("folder"), str(photos)).set(small), tmp_path / "run"))
    results = evaluate(run.path, metrics=["knn"])
    card = card_of(run, tmp_path / "hf")
    (line,) = [line for line in card.splitlines() if line.startswith("| kNN |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    low, high = results["knn"]["intervals"]["average"]
    assert cells[-1] == f"{results['knn']['average']:.1f} [{low:.1f}, {high:.1f}]"
    assert f"{results['knn_untrained']['average']:.1f} [" in card
    for fact in ("seed 5", "timm/resnet10t", f"Images: {run.read_recipe()['resolved']['num_images']} of 3", "simclr"):
        assert fact in card
    assert str(tmp_path) not in card, "where things lie on a machine is nobody's business"


def test_names_are_text(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", *RESNET18)
    scores = {"many": 1.0, "medium": None, "few": "2", "average": 3.0, "intervals": {"many": [0.0, 2.0], "few": "x"}}
    run.write_json(run.evaluation_file, {"knn": scores, "settings": {"data": EVIL}, "train_counts": [3, "x"]})
    run.append_metrics({"event": "warning", "step": 0, "epoch": 0, "sentence": EVIL})
    run.write_json(run.environment_file, {"device": EVIL})
    card = card_of(run, tmp_path / "hf")
    assert "<" not in card
    assert not re.search(r"(?<!\\)\]\(javascript", card)
    assert "\x1b" not in card
    assert "| kNN | 1.0 [0.0, 2.0] | - | - | 3.0 |" in card


def test_text_stays_text() -> None:
    assert as_text("plain 1.5, naïve") == "plain 1.5, naïve"
    assert as_text("a|b\n<i>") == r"a\|b\\n&lt;i&gt;"
