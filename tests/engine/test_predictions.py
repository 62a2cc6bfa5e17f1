"""Predictions are written down whole, joined by those of other metrics, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evensphere.engine.predictions import Predictions, read_predictions, write_predictions
from evensphere.errors import InputError
from evensphere.rundir import RunDir

IMAGES, LABELS = ["a/1.png", "b/ü.png", "b/3.png"], torch.tensor([0, 1, 1])


def test_metrics_of_the_same_images_are_kept_together(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert read_predictions(run, "test") is None
    write_predictions(run, "test", Predictions(IMAGES, LABELS, {"knn": torch.tensor([0, 0, 1])}))
    write_predictions(run, "test", Predictions(IMAGES, LABELS, {"probe": torch.tensor([1, 1, 1])}))
    got = read_predictions(run, "test")
    assert got is not None
    assert (got.images, got.labels.tolist()) == (IMAGES, [0, 1, 1])
    assert {name: one.tolist() for name, one in got.predicted.items()} == {"knn": [0, 0, 1], "probe": [1, 1, 1]}
    assert read_predictions(run, "validation") is None


def test_other_images_replace_them(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_predictions(run, "test", Predictions(IMAGES, LABELS, {"knn": LABELS}))
    write_predictions(run, "test", Predictions(IMAGES, LABELS.flip(0), {"probe": LABELS}))
    got = read_predictions(run, "test")
    assert got is not None
    assert list(got.predicted) == ["probe"]


@pytest.mark.parametrize("content", [b"", b"not parquet"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    run = RunDir(tmp_path)
    run.predictions_file("test").write_bytes(content)
    with pytest.raises(InputError, match="evaluate the run again"):
        read_predictions(run, "test")
