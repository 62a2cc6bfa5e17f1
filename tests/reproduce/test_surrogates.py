"""A look back at a run's surrogate labels, on a tiny run whose numbers can be worked out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evensphere.gh.harmonizer import Harmonizer, anchor_scores
from evensphere.recipes.building import revisit
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.reproduce.surrogates import look_back, own_harmonizer
from evensphere.rundir import RunDir

TINY = ["epochs=4", "backbone.width=4", "batch_size=64", "evaluate_every=4 epochs", "snapshot_every=1 epoch"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(get_recipe("digits-lt").set(TINY), tmp_path_factory.mktemp("run") / "gh"))


def test_every_kept_checkpoint_is_looked_at(run: RunDir) -> None:
    records = look_back(run)
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]
    for record in records:
        assert 0 < record["nmi_chance"] < record["nmi"] <= 1
        assert sum(record["prior"]) == pytest.approx(1, abs=1e-5)
        assert sum(record["owned_regions"].values()) <= len(record["prior"])
        assert record["gradient_ratio"] > 0
        assert -1 <= record["gradient_cosine"] <= 1
        assert 1 <= record["effective_regions"] <= len(record["prior"])
    assert len({record["gradient_ratio"] for record in records}) == 4, "the network changes"


def test_looking_back_changes_nothing(run: RunDir) -> None:
    files = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert look_back(run) == look_back(run)
    assert files == {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}


def test_pi_before_the_warm_ups_end_is_what_the_checkpoint_itself_says(run: RunDir) -> None:
    """The histogram of the nearest anchors of view 1, through the network of epoch 1, over the epoch that follows."""
    training, splits = revisit(run, 6)
    harmonizer = training.harmonizer
    assert isinstance(harmonizer, Harmonizer)
    training.method.train()
    counts = torch.zeros(len(harmonizer.anchors))
    with torch.no_grad():
        for step, batch in training.loader.batches(6, 12):
            output = training.method(training.views(batch, 1), batch.index, training.progress(step))
            for image in anchor_scores(output.embeddings[:1], harmonizer.anchors)[0]:
                counts[int(image.argmax())] += 1
    expected = sorted((counts / len(splits.pretrain)).tolist(), reverse=True)
    assert look_back(run)[0]["prior"] == pytest.approx(expected)


def test_a_run_without_gh_is_seen_through_anothers_anchors(run: RunDir, tmp_path: Path) -> None:
    recipe = get_recipe("digits-lt", "two-stage").set(TINY)
    control = RunDir(train(recipe, tmp_path / "control", branch=run.path))
    records = look_back(control, own_harmonizer(run))
    assert [record["epoch"] for record in records] == [2, 3, 4]
    ours = look_back(run)[1]
    assert records[0]["uniformity"] == ours["uniformity"], "the shared first stage is the same network"
    assert records[1]["uniformity"] != look_back(run)[2]["uniformity"]
