"""After training: a map that cannot be drawn is said, and the run is finished all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from evensphere.cli import mapping, report
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


def test_where_images_lie_now_is_said_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, list[str]]] = []

    def draw(folder: Path, data: Sequence[str], trust: bool) -> None:
        drawn.append((folder.name, list(data)))

    monkeypatch.setattr(report, "draw", draw)
    monkeypatch.setattr("evensphere.report.write_report", lambda runs, out: out)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text("{}")
    (tmp_path / "c" / "map.json").write_text("{}")
    a, b, c = (tmp_path / name for name in ("a", "b", "c"))
    for runs, options, reason in (
        ([a, c], {"data": ["new"]}, "--data was given without --map"),
        ([a, b], {"data": ["new"], "draw_map": True}, "2 of the runs lack a map"),
        ([c], {"data": ["new"], "draw_map": True}, "0 of the runs lack a map"),
    ):
        with pytest.raises(InputError, match=reason):
            report.run(runs, **options)
    assert drawn == []
    report.run([a, c, a], data=["new"], draw_map=True)
    report.run([a, b, c], draw_map=True)
    report.run([a, b, c])
    assert drawn == [("a", ["new"]), ("a", []), ("b", [])]
