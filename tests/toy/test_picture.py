from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.errors import InputError
from evensphere.toy import Arm, Outcome, toy_animation, toy_caption, toy_picture
from evensphere.toy.learn import COUNTS


def outcome(arm: Arm, seed: int, head: float, apart: float) -> Outcome:
    """The head spread evenly over `head` degrees, the other clusters `apart` from each other, far from it."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    degrees = torch.cat([torch.linspace(0, head, 1000), torch.full((100,), 200.0), torch.full((10,), 200.0 + apart)])
    points = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)
    anchors = torch.tensor([[1.0, 0.0], [-0.5, math.sqrt(3) / 2], [-0.5, -math.sqrt(3) / 2]])
    return Outcome(arm, seed, points, labels, anchors, ((50, points.roll(1, 0)), (100, points)))


OUTCOMES = [
    outcome("plain", 0, 100, 40),
    outcome("gh", 0, 60, 50),
    outcome("plain", 1, 120, 40),
    outcome("gh", 1, 130, 30),
]


def test_the_caption_tells_all_seeds() -> None:
    first, second, third = toy_caption(OUTCOMES).splitlines()
    assert "1,000, 100, 10 points, 2 seed(s)" in first
    assert "99° (90-108) alone, 85° (54-117) with GH; smaller with GH in 1 of 2" in second
    assert "40° (40-40) alone, 40° (30-50) with GH; wider with GH in 1 of 2" in third


def test_the_picture_is_an_image(tmp_path: Path) -> None:
    with Image.open(toy_picture(OUTCOMES, tmp_path / "new" / "toy.png")) as image:
        assert image.width > 1000


def test_the_animation_has_a_frame_for_each_snapshot(tmp_path: Path) -> None:
    with Image.open(toy_animation(OUTCOMES, tmp_path / "toy.gif")) as image:
        assert image.n_frames == 2  # type: ignore[attr-defined]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        toy_picture(OUTCOMES, tmp_path / "file" / "toy.png")


@pytest.mark.slow
def test_the_command_writes_picture_and_animation(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("toy.png", "toy.gif")]
    done = CliRunner().invoke(app, ["toy", "--seeds", "1", "--out", files[0], "--animation", files[1]])
    assert done.exit_code == 0, done.output
    assert "with GH in 1 of 1" in done.output
    assert all(Path(file).stat().st_size > 10_000 for file in files)
