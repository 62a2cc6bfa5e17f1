"""Finished runs with predictions that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.report.fake_runs import make_run, results

from evensphere.engine.predictions import Predictions, write_predictions
from evensphere.rundir import RunDir

LABELS = torch.tensor([0] * 8 + [1] * 6 + [2] * 4)  # dog (many), cat (medium), okapi (few)


def predicting(wrong: list[int]) -> torch.Tensor:
    """Everything right but these images."""
    predicted = LABELS.clone()
    predicted[wrong] = (LABELS[wrong] + 1) % 3
    return predicted


def scored_run(
    folder: Path, arm: str, seed: int, wrong: list[int], images: str = "image", metric: str = "probe", **recipe: Any
) -> Path:
    make_run(folder, arm, seed, results(40), **recipe)
    locations = [f"{images}{i}" for i in range(len(LABELS))]
    write_predictions(RunDir(folder), "test", Predictions(locations, LABELS, {metric: predicting(wrong)}))
    return folder
