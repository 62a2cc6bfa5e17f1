"""One recipe on the bench: every row is there and they agree with each other."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from evensphere.bench import bench, names
from evensphere.bench.operations import count_operations
from evensphere.bench.rows import Row
from evensphere.bench.subjects import Bench, bare_step, harmonizer_operations, set_up, step_operations, subjects
from evensphere.data.source import Splits
from evensphere.engine.processes import Processes
from evensphere.engine.train import Training
from evensphere.recipes.building import build_training
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_precision, with_sizes
from evensphere.rundir import RunDir

TINY = ("backbone.width=4", "batch_size=32", "harmonizer.anchors=8")
FIELDS = {
    *Row._fields,
    *("recipe", "network", "method", "batch", "images", "made_up", "anchors", "precision", "precision_why"),
    *("device", "threads", "python", "packages", "revision"),
}


def tiny(*settings: str) -> Recipe:
    return get_recipe("digits-lt").set([*TINY, *settings])


def ready(*settings: str) -> Bench:
    recipe = tiny(*settings)
    splits: Splits = build("data", recipe.data)
    recipe = with_precision(with_sizes(recipe, splits.pretrain))
    training: Training = build_training(recipe, splits, splits.pretrain, RunDir(Path()))
    return set_up(recipe, training, Processes().fabric(recipe.precision))


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    file = tmp_path_factory.mktemp("bench") / "rows.jsonl"
    rows = bench(tiny(), images=500, rounds=2, out=file)
    read = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{name: line[name] for name in Row._fields} for line in read] == [row._asdict() for row in rows]
    return {line["what"]: line for line in read}


def test_every_line_says_what_it_was_measured_on(lines: dict[str, dict[str, Any]]) -> None:
    assert all(line.keys() == FIELDS for line in lines.values())
    one = lines[names.BARE]
    assert (one["recipe"], one["batch"], one["images"], one["anchors"], one["n"]) == ("digits-lt", 32, 512, 8, 2)
    assert (one["made_up"], one["threads"], one["precision"]) == (True, torch.get_num_threads(), "32-true")
    assert one["packages"]["torch"] == torch.__version__.split("+")[0]


def test_the_rows_agree_with_each_other(lines: dict[str, dict[str, Any]]) -> None:
    timed = [line for line in lines.values() if line["unit"] == "ms"]
    assert {line["what"] for line in timed} >= {names.BARE, names.WITHOUT, names.EXACT, names.STREAMING, names.LOADER}
    assert all(0 < line["min"] <= line["median"] <= line["max"] for line in timed)
    assert lines[names.BARE]["ratio"] == 1
    for name in (names.WITHOUT, names.EXACT, names.STREAMING):
        bare, step = lines[names.BARE], lines[name]
        assert step["min"] / bare["max"] <= step["ratio_low"] <= step["ratio"] <= step["ratio_high"]
        assert step["ratio_high"] <= step["max"] / bare["min"]
        speed = lines[f"{name}, speed"]
        assert (speed["min"], speed["max"]) == pytest.approx((32_000 / step["max"], 32_000 / step["min"]))
    assert lines[names.GH_PARTS_SHARE]["median"] > 0
    assert lines[names.BESIDE_SHARE]["max"] < 100


def test_operations_are_those_of_the_step(lines: dict[str, dict[str, Any]]) -> None:
    without, exact = lines[names.OPERATIONS_WITHOUT]["median"], lines[names.OPERATIONS_WITH]["median"]
    assert 100 < without < exact
    assert lines[names.OPERATIONS_GH]["median"] == lines[names.OPERATIONS_GH_TWICE]["median"]


def test_ghs_operations_are_the_difference_of_two_steps() -> None:
    on_the_bench = ready("harmonizer.max_iterations=7", "harmonizer.tolerance=1e-30")
    on_the_bench.step(names.WITHOUT)
    without, exact = step_operations(on_the_bench)
    assert on_the_bench.iterations[-1] == 7
    alone = harmonizer_operations(on_the_bench, 1, 7)
    assert abs((exact - without) - alone) <= 5, "the two losses are added, and so are their gradients"
    assert harmonizer_operations(on_the_bench, 1, 10) > alone


def test_ghs_loss_is_timed_at_as_many_iterations_as_in_training() -> None:
    on_the_bench = ready()
    tasks = subjects(on_the_bench)
    loss, memory = (count_operations(tasks[name]) for name in (names.GH_LOSS_TRAINED, names.GH_MEMORY))
    assert abs(loss + memory - harmonizer_operations(on_the_bench, 1, 30)) <= 3


@pytest.mark.parametrize("size", [2, 5])
def test_ghs_operations_do_not_grow_with_images_or_batch(size: int) -> None:
    on_the_bench = ready()
    assert harmonizer_operations(on_the_bench, size, 4) == harmonizer_operations(on_the_bench, 1, 4)


def test_the_steps_train_and_the_bare_one_leaves_the_network_as_it_is() -> None:
    on_the_bench = ready()
    step, batch = on_the_bench.next_batch()
    views = on_the_bench.views(batch, on_the_bench.exact.progress(step))
    bare = bare_step(on_the_bench, views)
    weights = [parameter.clone() for parameter in on_the_bench.exact.method.parameters()]
    bare()
    for before, after in zip(weights, on_the_bench.exact.method.parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert after.grad is None
    record = on_the_bench.step(names.EXACT)
    assert record["gh_weight"] == 1, "GH has its full weight"
    assert any((a != b).any() for a, b in zip(weights, on_the_bench.exact.method.parameters(), strict=True))
    assert "gh" not in on_the_bench.step(names.WITHOUT)


def test_pi_is_long_tailed_and_every_image_was_seen() -> None:
    population = ready().harmonizer.population
    assert population is not None
    assert population.memory.seen.all()  # type: ignore[union-attr]
    shares = population.estimate().sort().values
    assert shares[-1] > 10 * shares[0] > 0


def test_batches_of_another_size_are_passed_over() -> None:
    on_the_bench = ready("batch_size=100")  # of 594 images or so
    loader = on_the_bench.exact.loader
    assert len(loader.source) % 100 > 1
    sizes = {len(on_the_bench.next_batch()[1].index) for _ in range(2 * loader.steps_per_epoch)}
    assert sizes == {100}


@pytest.mark.parametrize("method", ["byol", "dino", "bcl"])
def test_any_method_is_measured(method: str) -> None:
    tasks = subjects(ready(f"method={method}"))
    for task in tasks.values():
        task()


def test_the_page_is_for_people() -> None:
    console = Console(file=io.StringIO(), width=110)
    bench(tiny(), images=100, rounds=1, console=console)
    page = console.file.getvalue()  # type: ignore[attr-defined]
    for words in ("digits-lt: resnet-small, simclr, batch 32", "of bare", "GH costs", "made-up pixels", "Precision"):
        assert words in page
    assert "twice the images and the batch take no more of them" in page


def test_a_recipe_is_left_as_it_was() -> None:
    recipe = tiny()
    before = copy.deepcopy(recipe)
    bench(recipe, images=100, rounds=1)
    assert recipe == before
