"""`evensphere compare` on runs as small as they can be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from evensphere.cli.main import main
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate


def compare(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evensphere", "compare", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An arm each, trained for an epoch; the second seed of GH has no partner."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    for name, arm, seed in (("gh0", "gh", 0), ("two-stage0", "two-stage", 0), ("gh1", "gh", 1)):
        recipe = get_recipe("digits-lt", arm).set([f"seed={seed}", "epochs=2", "backbone.width=4", "monitor="])
        found[name] = train(recipe, folder / name)
        evaluate(found[name], metrics=["knn", "probe"])
    return found


def test_two_runs_and_a_seed_too_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: dict[str, Path]
) -> None:
    arguments = ["--a", str(runs["gh0"]), str(runs["gh1"]), "--b", str(runs["two-stage0"])]
    assert compare(monkeypatch, *arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "linear probe on 400 test images",
        "with GH",
        "harmonizer.name: gh against none",
        "Without a partner",
    ):
        assert words in printed
    assert "With GH against two-stage rate without GH: few " in printed
    assert printed.endswith("points, 1 seed.")
    assert compare(monkeypatch, *arguments, "--json", "--metric", "knn") == 0
    content = json.loads(capsys.readouterr().out)
    scores = [json.loads((runs[name] / "eval.json").read_text())["knn"] for name in ("gh0", "two-stage0")]
    for group in ("many", "medium", "few", "average"):
        got = content["groups"][group]
        assert [got["a"], got["b"]] == pytest.approx([one[group] for one in scores]), "what evaluate wrote"
        assert got["interval"][0] <= got["difference"] <= got["interval"][1]


def test_runs_that_cannot_be_compared_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: dict[str, Path]
) -> None:
    assert compare(monkeypatch, str(runs["gh0"]), str(runs["gh1"])) == 2
    assert "nothing but their seed" in capsys.readouterr().err
    assert compare(monkeypatch) == 2
    assert "two or more run folders" in capsys.readouterr().err


def test_two_runs_on_a_few_labels_of_ones_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: dict[str, Path], tmp_path: Path
) -> None:
    digits = load_digits()
    for c in range(3):
        (tmp_path / "mine" / f"digit{c}").mkdir(parents=True)
        for i, number in enumerate(np.flatnonzero(digits.target == c)[:4]):
            image = Image.fromarray((digits.images[number] * 15.9).astype(np.uint8))
            image.save(tmp_path / "mine" / f"digit{c}" / f"{i}.png")
    both = [str(runs["gh0"]), str(runs["two-stage0"])]
    assert compare(monkeypatch, *both, "--labels", str(tmp_path / "mine"), "--metric", "knn") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "kNN on 12 labelled images" in printed
    assert "With GH against two-stage rate without GH: average " in printed
    assert "abels" in printed.partition("Interval: ")[2], "how many more would settle it, or that it is settled"
    assert compare(monkeypatch, *both, "--labels", str(tmp_path / "mine"), "--metric", "knn", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["split"], content["images"], content["seeds"]) == ("labelled", 12, 1)
    assert compare(monkeypatch, *both, "--labels", str(tmp_path / "mine"), "--metric", "five_shot") == 2
    assert "knn" in capsys.readouterr().err
