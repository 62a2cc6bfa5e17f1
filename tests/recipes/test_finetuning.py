"""Fine-tuning a run: which images it trains on, and what it leaves in the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evensphere.cli.finetune import worth
from evensphere.data.source import ArraySource, Splits, take
from evensphere.engine.finetune import METHODS, Tuning
from evensphere.engine.predictions import read_predictions
from evensphere.recipes.finetuning import finetune_run, supervised, training_images
from evensphere.recipes.part import Part
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir


def test_a_run_gets_scores_beside_its_others(tmp_path: Path) -> None:
    recipe = get_recipe("digits-lt", "base").set(["epochs=1", "backbone.width=4", "monitor=", "schedule.warm_up=0.0"])
    run = train(recipe, tmp_path / "run")
    evaluate(run, metrics=["knn"])
    results = finetune_run(run, tuning=Tuning(epochs=1, batch_size=64, learning_rates=(0.05,)))
    names = [f"{start}_{method}" for start in ("finetune", "scratch") for method in METHODS]
    assert set(results) >= {"knn", "knn_untrained", *names}
    assert results == json.loads((run / "eval.json").read_text())
    assert results["finetune_ce"]["train_images"] == sum(results["train_counts"])
    assert results["finetune_ce"]["per_class"] != results["scratch_ce"]["per_class"]
    kept = read_predictions(RunDir(run), "test")
    assert kept is not None
    assert list(kept.predicted) == ["knn", *names]
    right = (kept.predicted["scratch_crt"] == kept.labels).double().mean()
    assert 100 * float(right) == pytest.approx(results["scratch_crt"]["accuracy"])


def test_images_for_testing_are_not_trained_on() -> None:
    whole = ArraySource("all", torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.arange(10) % 2, ("a", "b"))
    splits = Splits(whole, whole, take(whole, torch.tensor([3])), take(whole, torch.tensor([0, 7])))
    kept = training_images(splits)
    assert [kept.location(i) for i in range(len(kept))] == [f"all[{i}]" for i in (1, 2, 4, 5, 6, 8, 9)]
    assert training_images(Splits(whole)) is whole


def test_views_are_a_crop_and_a_flip() -> None:
    given = Part("cifar", size=32, blur=0.5, scale=[0.08, 1.0], num_views=3)
    assert supervised(given).options == {
        "size": 32, "blur": 0.0, "scale": [0.25, 1.0], "num_views": 1, "local_views": 0, "jitter_probability": 0.0,
        "gray": 0.0, "solarize": 0.0,
    }  # fmt: skip


def test_the_sentence_goes_by_the_best_from_scratch() -> None:
    def scored(few: float, average: float) -> dict[str, float | None]:
        return {"few": few, "medium": None, "many": 50.0, "average": average}

    results = {
        "finetune_ce": scored(9, 30),
        "scratch_ce": scored(1, 20),
        "finetune_crt": scored(20, 38),
        "scratch_crt": scored(17.5, 33),
    }
    assert worth(results, ("ce", "crt")) == (
        "Pretrained against from scratch, crt: few +2.5, many +0.0, average +5.0 points (one seed, so a hint)."
    )
