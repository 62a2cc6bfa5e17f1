"""examples/detection.py: an export in torchvision's Faster R-CNN, and the loss falls."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from tests.export.made_up import RESNET18, made_run, pictures
from torchvision.datasets import ImageFolder

from evensphere import export_encoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "detection", raising=False)


def test_boxes_are_where_photos_were_pasted(tmp_path: Path) -> None:
    detection = import_module("detection")
    photos = ImageFolder(pictures(tmp_path / "photos"))
    for seed in range(5):
        draw = torch.Generator().manual_seed(seed)
        image, target = detection.scene(photos, 64, draw)
        background = torch.randint(len(photos), (3,), generator=torch.Generator().manual_seed(seed))[0]
        plain = detection.square(photos, int(background), 64)
        outside = torch.ones(64, 64, dtype=torch.bool)
        for x0, y0, x1, y1 in target["boxes"].int().tolist():
            assert 0 <= x0 < x1 <= 64
            assert 0 <= y0 < y1 <= 64
            outside[y0:y1, x0:x1] = False
        assert torch.equal(image[:, outside], plain[:, outside])
        assert not torch.equal(image, plain)
        assert set(target["labels"].tolist()) <= {1, 2}


@pytest.mark.slow
def test_it_runs_to_the_end_and_the_loss_falls(tmp_path: Path) -> None:
    detection = import_module("detection")
    run = made_run(tmp_path / "run", *RESNET18)
    export_encoder(run.path, "torchvision", tmp_path / "e.pth")
    photos = pictures(tmp_path / "photos", count=16, classes=8)
    losses = list(detection.fine_tune(tmp_path / "e.pth", photos, steps=30, batch=2, side=96, seed=0))
    assert len(losses) == 30
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
