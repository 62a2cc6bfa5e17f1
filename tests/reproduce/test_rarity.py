"""The measurement of rarity: lifts and verdicts of known lines; lines written once; a tiny run from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.reproduce.rarity import (
    BUDGETS,
    FILE,
    _found,
    estimate,
    lift,
    measure,
    measure_all,
    rarity_section,
    read_lines,
    smallest_first,
)
from evensphere.reproduce.speed import speed_section
from evensphere.rundir import RunDir


def line(arm: str, seed: int, hits: int, **more: int) -> dict[str, Any]:
    """hits: rare images at every budget, of the score "density"; more: of other scores."""
    found = {
        score: {str(budget): [rare, min(rare, 3)] for budget in BUDGETS}
        for score, rare in {"density": hits, **more}.items()
    }
    return {
        "scale": "small",
        "run": f"{arm}-seed{seed}",
        "arm": arm,
        "seed": seed,
        "recipe": "made-up",
        "epochs": 2,
        "images": 10_000,
        "rare_share": 0.05,
        "shared_neighbours_percent": 12.5,
        "found": found,
    }


def page_of(lines: list[dict[str, Any]], archive: Path) -> str:
    (archive / FILE).write_text("".join(json.dumps(one) + "\n" for one in lines))
    return "\n".join(str(block) for block in rarity_section(archive))


def test_lift_is_precision_over_chance() -> None:
    assert lift(line("base", 0, 20), "density", 200) == pytest.approx(2.0)
    assert lift(line("base", 0, 20), "density", 400) == pytest.approx(1.0)


def test_images_of_the_smallest_regions_come_first_and_of_these_the_sparsest() -> None:
    size, density = torch.tensor([0.5, 0.1, 0.1, 0.3]), torch.tensor([-2.0, 3.0, 1.0, -1.0])
    assert smallest_first(size, density).tolist() == [2, 1, 3, 0]


def test_what_is_found_is_counted_up_to_each_budget() -> None:
    order, labels = torch.arange(500), torch.arange(500) % 10
    rare = (labels == 3) | (labels == 7)
    found = _found(order, rare, labels)
    assert found == {str(budget): [budget // 5, 2] for budget in BUDGETS}
    assert _found(order.flip(0), rare & (order < 10), labels)["25"] == [0, 0], "the first of the list count"


def test_a_run_of_another_arm_is_passed_over(tmp_path: Path) -> None:
    for name in ("bcl-base-seed0", "gh-weight-3-seed1"):
        run = RunDir(tmp_path / name)
        run.create()
        run.write_json(run.recipe_file, {})
        run.encoder_file.touch()
        measure_all([run.path], None, tmp_path / FILE)
    assert not (tmp_path / FILE).exists() or not read_lines(tmp_path / FILE)


def test_the_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.seeds) == (2.0, 3)
    assert found.margin == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert estimate([1.0]).margin is None


def test_the_verdict_follows_the_numbers(tmp_path: Path) -> None:
    good = [line("base", seed, 20 + seed) for seed in range(3)]
    bad = [line("base", seed, 10 + 3 * seed) for seed in range(3)]
    worse = [line("base", seed, 2 + seed) for seed in range(3)]
    even = [line("balanced", seed, 9 + seed) for seed in range(3)]
    gh = [line("gh", seed, 40 + seed, region=12 - seed) for seed in range(3)]
    assert "density alone of SimCLR finds more than random (lift 2.10" in page_of(good, tmp_path)
    assert "finds not surely more than random" in page_of(bad, tmp_path)
    assert "finds fewer than random" in page_of(worse, tmp_path)
    assert "finds more than it does on balanced data (lift 2.10 against 1.00" in page_of(good + even, tmp_path)
    assert "finds not surely more than it does on balanced data" in page_of(bad + even, tmp_path)
    page = page_of(good + gh, tmp_path)
    assert "density alone of SimCLR + GH finds more than SimCLR's own list (difference in lift 2.00" in page
    assert "size of the GH region of SimCLR + GH finds fewer than SimCLR's own density" in page
    assert "one seed" not in page
    assert "finds not surely more than random (lift 2.00)" in page_of(good[:1], tmp_path), "one seed is no evidence"


def test_nothing_measured_is_no_section_and_no_speed(tmp_path: Path) -> None:
    assert rarity_section(tmp_path) == []
    page_of([line("base", 0, 20)], tmp_path)
    assert speed_section(tmp_path, tmp_path) == []


@pytest.mark.slow
def test_a_tiny_run_is_measured_once(tmp_path: Path) -> None:
    settings = ["epochs=2", "backbone.width=8", "data.largest=60", "monitor=", "harmonizer.warm_up=1 epoch"]
    run = train(get_recipe("digits-lt").set(settings), tmp_path / "gh-seed0")
    found = measure(RunDir(run), None)
    counts = torch.tensor(found["found"]["region"]["400"])
    assert (found["arm"], found["seed"]) == ("gh", 0)
    assert set(found["found"]) == {"rare", "density", "region"}
    assert counts[0] == round(found["rare_share"] * found["images"]), "a list of all images holds all rare ones"
    assert counts[1] == 3, "ten classes in thirds leave three or four few"
    file = tmp_path / FILE
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.json").write_text((run / "recipe.json").read_text())
    for _ in range(2):
        measure_all([run, tmp_path / "unfinished"], None, file)
        assert [(one["run"], one["found"]) for one in read_lines(file)] == [("gh-seed0", found["found"])]
