"""After training: a map that cannot be drawn is said, and the run is finished all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from evensphere.cli import mapping
from evensphere.errors import InputError


def test_a_map_that_cannot_be_drawn_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def draw(folder: Path, images: int, data: object, trust: bool, typed: object) -> None:
        asked.append(images)
        raise InputError("The images are gone; put them back.")

    monkeypatch.setattr(mapping, "draw", draw)
    mapping.draw_after_training(tmp_path, 0)
    assert asked == [], "--map 0 draws none"
    mapping.draw_after_training(tmp_path, 77)
    assert asked == [77]
    assert "No map of the images was drawn: The images are gone; put them back." in capsys.readouterr().err
    (tmp_path / "map.json").write_text("{}")
    mapping.draw_after_training(tmp_path, 77)
    assert asked == [77], "what is there stays"
