"""The tables without runs: measured once, kept, and shown again from what was kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from evensphere.bench import names
from evensphere.errors import InputError
from evensphere.reproduce import circles, cost
from evensphere.reproduce.cells import get_table
from evensphere.reproduce.publish import keep, publish
from evensphere.reproduce.run import reproduce
from evensphere.toy import learn


def timed(rounds: int, share: float) -> str:
    """Rows as bench writes them."""
    rows = {names.WITHOUT: (90.0, "ms"), names.EXACT: (100.0, "ms"), names.STREAMING: (98.0, "ms")}
    lines = []
    for what, (value, unit) in {**rows, names.GH_SHARE: (share, "% of the step")}.items():
        spread = {"min": value - 1, "max": value + 1, "low": value - 0.5, "high": value + 0.5}
        lines.append(json.dumps({"what": what, "n": rounds, "median": value, "unit": unit, **spread, "threads": 1}))
    return "\n".join(lines) + "\n"


def test_the_toy_is_trained_once_and_shown_again_from_what_is_kept(tmp_path: Path) -> None:
    folder = reproduce("toy", "tiny", seeds=2, out=tmp_path / "runs")
    lines = [json.loads(line) for line in (folder / "toy.jsonl").read_text().splitlines()]
    assert [(line["arm"], line["seed"]) for line in lines] == [("plain", 0), ("gh", 0), ("plain", 1), ("gh", 1)]
    assert lines[1]["head_arc"] == learn("gh", 0, 30).head_arc
    written = (folder / "toy.jsonl").stat().st_mtime_ns
    reproduce("toy", "tiny", seeds=1, out=folder)
    assert (folder / "toy.jsonl").stat().st_mtime_ns == written

    page = (folder / "toy.md").read_text()
    assert page.startswith("# evensphere reproduce toy --scale tiny --seeds 2\n"), "the page shows what is there"
    arcs = [line["head_arc"] for line in lines]
    difference = (arcs[1] + arcs[3] - arcs[0] - arcs[2]) / 2
    assert f"| InfoNCE + GH, against InfoNCE | {difference:+.2f} [" in page
    smaller = sum(gh < plain for plain, gh in (arcs[:2], arcs[2:]))
    assert f"| more even with GH, pairs | {smaller} | " in page

    keep("toy", "tiny", folder, tmp_path / "archive")
    published = publish(tmp_path / "archive", tmp_path / "docs")
    assert "## `evensphere reproduce toy --scale tiny --seeds 2`" in published
    assert [line for line in page.splitlines() if line.startswith("|")] == [
        line for line in published.splitlines() if line.startswith("|")
    ]
    assert (tmp_path / "docs" / "results" / "tiny-toy-circles.png").stat().st_size > 10_000


def test_the_toy_takes_no_data_and_no_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="makes up its own points"):
        reproduce("toy", "tiny", seeds=1, data="photos", out=tmp_path)
    (tmp_path / "toy.jsonl").write_text('{"arm": "gh"}\n')
    (tmp_path / "toy-circles.png").write_bytes(b"")
    with pytest.raises(InputError, match="delete it to train the pairs again"):
        circles.measure_toy("tiny", 1, None, tmp_path, Console(quiet=True))


def test_the_cost_of_a_method_is_timed_until_it_has_its_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def bench(recipe: object, data: str | None, rounds: int, out: Path) -> None:
        asked.append((out.stem, rounds))
        out.write_text(timed(rounds, 10.0 + len(asked)))

    monkeypatch.setattr(cost, "bench", bench)
    reproduce("cost", "tiny", seeds=1, out=tmp_path)
    assert asked == [(method, 10) for method in ("simclr", "focal", "sdclr", "bcl")]
    reproduce("cost", "tiny", seeds=1, out=tmp_path)
    assert len(asked) == 4
    (tmp_path / "cost" / "sdclr.jsonl").unlink()
    reproduce("cost", "tiny", seeds=1, out=tmp_path)
    assert asked[4:] == [("sdclr", 10)]
    page = (tmp_path / "cost.md").read_text()
    assert "| SimCLR | 90 [89.5, 90.5] | 100 [99.5, 100] | 98 [97.5, 98.5] | 11 [10.5, 11.5] | 10 |" in page
    assert (tmp_path / "cost-steps.png").stat().st_size > 10_000
    reproduce("cost", "tiny", seeds=2, out=tmp_path)
    assert asked[5:] == [(method, 20) for method in ("simclr", "focal", "sdclr", "bcl")]

    keep("cost", "tiny", tmp_path, tmp_path / "archive")
    published = publish(tmp_path / "archive", tmp_path / "docs")
    assert "## `evensphere reproduce cost --scale tiny --seeds 2`" in published


@pytest.mark.slow
def test_the_bench_is_what_times_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "ROUNDS", 1)
    page = (reproduce("cost", "tiny", seeds=1, out=tmp_path) / "cost.md").read_text()
    assert [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| S")] == ["| SimCLR", "| SDCLR"]


@pytest.mark.parametrize(("table", "scale", "seeds"), [("toy", "smal", 1), ("cost", "tiny", 0)])
def test_mistakes_are_refused(table: str, scale: str, seeds: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"small|at least 1"):
        reproduce(table, scale, seeds, out=tmp_path)


def test_they_have_no_cells() -> None:
    with pytest.raises(InputError, match="has no runs"):
        get_table("toy")
