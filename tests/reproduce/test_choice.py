"""Made-up lines whose verdicts are known, and the two sections made of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from evensphere.errors import InputError
from evensphere.reproduce.choice import (
    NAMES,
    SIGNALS_FILE,
    by_run,
    judged_picks,
    over_runs,
    rank_correlation,
    read_signals,
    signals_sections,
    verdict,
)
from evensphere.reproduce.page import Rows, to_markdown

Line = dict[str, Any]
SIGNAL = "lidar_features"


def made_up(few: dict[str, list[float]], signal: dict[str, list[float]], arm: str = "gh") -> list[Line]:
    """Lines of runs whose few score `few` at their checkpoints while one signal says `signal`; the others are noise."""
    noise = random.Random(0)
    lines = []
    for run, accuracies in few.items():
        for step, accuracy in enumerate(accuracies):
            signals = {name: noise.random() for name in NAMES} | {"step": step, SIGNAL: signal[run][step]}
            scores = {"many": 50.0, "medium": 40.0, "few": accuracy, "average": 40.0}
            lines.append(
                {
                    "run": run,
                    "recipe": "toys",
                    "epochs": 5,
                    "arm": arm,
                    "seed": int(run[-1]),
                    "step": step,
                    "signals": signals,
                    "accuracies": {"knn": scores, "probe": scores},
                }
            )
    return lines


RUNS = [f"gh-seed{i}" for i in range(6)]
BEST_IN_THE_MIDDLE = {run: [10.0, 12.0, 20.0 + i, 15.0, 11.0] for i, run in enumerate(RUNS)}
RISING = {run: [10.0, 12.0, 13.0 + i / 10, 15.0, 18.0] for i, run in enumerate(RUNS)}


def test_a_signal_that_orders_as_labels_do_has_rank_correlation_1() -> None:
    upside_down = {run: [-one for one in few] for run, few in RISING.items()}
    for signal, expected in ((RISING, 1.0), (upside_down, -1.0)):
        found = rank_correlation(by_run(made_up(RISING, signal)), SIGNAL, "probe")
        assert found is not None
        assert tuple(found) == pytest.approx((expected,) * 3)
    constant = {run: [1.0] * 5 for run in RUNS}
    assert rank_correlation(by_run(made_up(RISING, constant)), SIGNAL, "probe") is None


def test_a_signal_that_knows_the_best_checkpoint_is_found_and_pays() -> None:
    runs = by_run(made_up(BEST_IN_THE_MIDDLE, BEST_IN_THE_MIDDLE))
    picks = judged_picks(runs, "probe")
    assert picks.gain is not None
    assert picks.headroom is not None
    assert picks.rules == ["most LiDAR of features"]
    assert picks.gain.value == picks.headroom.value == pytest.approx(11.5)
    assert "Picking pays" in verdict({"probe": picks, "knn": picks})


def test_where_the_last_is_best_nothing_pays() -> None:
    picks = judged_picks(by_run(made_up(RISING, BEST_IN_THE_MIDDLE)), "probe")
    assert picks.headroom is not None
    assert picks.headroom.value == 0
    assert picks.gain is not None
    assert picks.gain.value <= 0
    assert "No signal deserves" in verdict({"probe": picks, "knn": picks})


def test_a_rule_that_only_fits_its_own_half_does_not_pay() -> None:
    """Every run is best somewhere else and no signal knows where: fitted, some rule looks good; judged, it is not."""
    generator = random.Random(1)
    few = {run: [generator.uniform(10, 20) for _ in range(4)] + [18.0] for run in RUNS}
    picks = judged_picks(by_run(made_up(few, {run: [generator.random() for _ in range(5)] for run in RUNS})), "probe")
    assert picks.gain is not None
    assert picks.gain.low <= 0


def test_too_few_runs_give_no_verdict() -> None:
    picks = judged_picks(by_run(made_up(RISING, RISING))[:3], "probe")
    assert picks.gain is None
    assert "Too few runs" in verdict({"probe": picks})


def test_the_interval_of_a_mean_over_runs() -> None:
    assert over_runs([], "x") is None
    pair = over_runs([1.0, 3.0], "x")
    assert pair is not None
    assert pair.value == 2
    assert pair.low != pair.low, "two runs have no interval"
    values = [random.Random(2).gauss(0, 1) + i % 3 for i in range(30)]
    found = over_runs(values, "x")
    assert found is not None
    standard_error = (sum((v - found.value) ** 2 for v in values) / 29) ** 0.5 / 30**0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def knowledge(**changes: float) -> dict[str, Any]:
    skew = {"value": 0.5, "low": 0.4, "high": 0.6}
    return {
        "class_skew": 0.6, "density": 0.1, "class_density": 0.1, "few_in_sparsest": 5.0, "few_in_all": 5.0,
        "region_size_anchors": 0.0, "region_size_k_means": None, "skew_anchors": skew, "skew_k_means": skew,
    } | changes  # fmt: skip


def with_knowledge(density: float, balanced: float) -> list[Line]:
    lines = made_up(RISING, RISING, "base")[:15]  # three seeds
    for seed in range(3):
        last, control = lines[5 * seed + 4], dict(lines[5 * seed + 4])
        last["classes"] = knowledge(density=density + seed / 100)
        control |= {"run": f"balanced-seed{seed}", "arm": "balanced", "classes": knowledge(density=balanced)}
        lines.append(control)
    return lines


@pytest.mark.parametrize(
    ("density", "balanced", "words"),
    [(0.5, 0.1, "local density around an image"), (0.5, 0.5, "Nothing here"), (0.1, 0.5, "Nothing here")],
)
def test_what_a_balanced_set_shows_too_is_no_knowledge(
    tmp_path: Path, density: float, balanced: float, words: str
) -> None:
    lines = with_knowledge(density, balanced)
    (tmp_path / SIGNALS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = to_markdown(signals_sections(tmp_path, tmp_path))
    verdicts = [line for line in page.splitlines() if line.startswith("**")]
    assert len(verdicts) == 2
    assert words in verdicts[1]


def test_the_sections_hold_every_signal_and_come_from_the_file_alone(tmp_path: Path) -> None:
    assert signals_sections(tmp_path, tmp_path) == []
    lines = with_knowledge(0.5, 0.1)
    shuffled = random.Random(3).sample(lines, len(lines))
    (tmp_path / SIGNALS_FILE).write_text("".join(json.dumps(line) + "\n" for line in shuffled))
    blocks = signals_sections(tmp_path, tmp_path)
    tables = [block for block in blocks if isinstance(block, Rows)]
    assert [row[0] for row in tables[0].rows] == list(NAMES.values())
    assert all(len(row) == len(table.header) for table in tables for row in table.rows)
    assert (tmp_path / "signals.png").stat().st_size > 10_000


def test_runs_of_another_length_are_no_control(tmp_path: Path) -> None:
    """Three seeds that know and three, of twice the length, that do not: each has a table and a verdict of its own."""
    short, long = with_knowledge(0.5, 0.1), [line | {"epochs": 10} for line in with_knowledge(0.1, 0.5)]
    (tmp_path / SIGNALS_FILE).write_text("".join(json.dumps(line) + "\n" for line in long + short))
    page = to_markdown(signals_sections(tmp_path, tmp_path)).partition("# What regions know of classes")[2]
    one, other = page.split("## toys with ")[1:]
    assert one.startswith("5 epochs")
    assert other.startswith("10 epochs")
    assert "these tell common classes from rare ones" in one
    assert "3 long-tailed runs" in one
    assert "Nothing here tells" in other


@pytest.mark.parametrize("text", ['{"run": "a", "step": 1}\n{"run": "a", "st', '{"run": "a", "step": 1}\n', "[1]\n"])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / SIGNALS_FILE).write_text(text)
    with pytest.raises(InputError, match=r"signals\.jsonl"):
        read_signals(tmp_path / SIGNALS_FILE)


@pytest.mark.parametrize("key", ["run", "recipe", "epochs", "arm", "seed", "step", "signals", "accuracies"])
def test_a_line_without_what_every_line_has_is_damage(tmp_path: Path, key: str) -> None:
    line = made_up(RISING, RISING)[0]
    del line[key]
    (tmp_path / SIGNALS_FILE).write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=f"cannot be read \\('{key}'\\)"):
        read_signals(tmp_path / SIGNALS_FILE)
