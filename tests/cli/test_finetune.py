"""`evensphere finetune` on the command line: a table, what pretraining was worth, and one sentence for a mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from evensphere.cli.main import main
from evensphere.engine.finetune import METHODS
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.report.record import METRICS


def finetune(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["evensphere", "finetune", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_digits_run_is_finetuned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = get_recipe("digits-lt", "base").set(["epochs=1", "backbone.width=4", "monitor=", "schedule.warm_up=0.0"])
    run = train(recipe, tmp_path / "run")
    arguments = ["--epochs", "1", "--learning-rate", "0.05", "--batch", "64", "--seed", "3"]
    assert finetune(monkeypatch, str(run), *arguments) == 0
    printed = capsys.readouterr().out
    names = [f"{start}_{method}" for method in METHODS for start in ("finetune", "scratch")]
    assert all(METRICS[name] in printed for name in names)
    assert "Pretrained against from scratch, " in printed
    assert f"Written: {run / 'eval.json'}" in printed
    scores = json.loads((run / "eval.json").read_text())
    assert f"{scores['scratch_crt']['average']:.2f}" in printed
    assert scores["scratch_crt"]["average"] > 0
    assert finetune(monkeypatch, str(run), "--learning-rate", "0") == 2
    assert "give one or more above 0" in capsys.readouterr().err


def test_a_run_that_is_not_there_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(monkeypatch, "/nowhere") == 2
    printed = capsys.readouterr().err
    assert "not a run folder" in printed
    assert len(printed.splitlines()) == 1
