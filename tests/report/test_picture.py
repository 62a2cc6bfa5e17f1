"""The PNG shows every arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tests.report.fake_runs import make_run, results

from evensphere.report import groups_picture
from evensphere.report.arms import group_arms
from evensphere.report.record import read_runs


def test_the_picture_shows_every_arm(six: list[Path], tmp_path: Path) -> None:
    path = groups_picture(six, tmp_path / "groups.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    assert len(pixels) > 500_000
    for arm in group_arms(read_runs(six)):
        color = np.array([int(arm.look.color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(pixels.astype(int) - color).max(axis=1) < 3).sum() > 500


def test_the_picture_takes_names_as_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", "$\\frac{x$", 0, results(40))
    assert groups_picture([folder], tmp_path / "x.png").stat().st_size > 10_000
