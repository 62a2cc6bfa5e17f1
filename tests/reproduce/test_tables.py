"""The tables of the paper: which cells they have, at which scales, and what of them is shared."""

from __future__ import annotations

from pathlib import Path

import pytest

from evensphere.data.subset import long_tail_counts
from evensphere.errors import InputError
from evensphere.methods import METHOD_INFO
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.reproduce import DIRECT, SCALES, TABLES
from evensphere.reproduce.arms import ARMS, SKEWS
from evensphere.reproduce.cells import Cell, get_table, has_scale, table_cells
from evensphere.reproduce.run import reproduce

TRAINED = [table for table in TABLES if table not in DIRECT]


def by_arm(table: str, scale: str) -> dict[str, Cell]:
    return {cell.arm: cell for cell in table_cells(table, scale, seeds=1, data=None)}


@pytest.mark.parametrize("table", TRAINED)
@pytest.mark.parametrize("scale", SCALES)
def test_whatever_branches_has_its_stem_in_the_same_table(table: str, scale: str) -> None:
    """Otherwise it would wait for a run that nobody makes."""
    if not has_scale(table, scale):
        return
    cells = by_arm(table, scale)
    assert list(cells) == sorted(get_table(table).arms, key=lambda arm: ARMS[arm].branch is not None)
    for cell in cells.values():
        if cell.branch is not None:
            stem = cells[cell.branch.removesuffix("-seed0")].recipe
            assert stem.harmonizer.name == "gh"
            assert stem.stages is None, "a run in stages shares no first stage"
            assert cell.recipe.branching_from(stem).schedule == cell.recipe.schedule
    assert {arm for pair in get_table(table).contrasts for arm in pair} <= cells.keys()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("skew", SKEWS)
def test_an_imbalance_that_a_title_names_is_had_at_every_scale(scale: str, skew: str) -> None:
    options = by_arm("skew", scale)[f"{skew}-gh"].recipe.data.options
    classes = 10 if scale == "tiny" else 100
    counts = long_tail_counts(options["largest"], classes, options["imbalance"], options.get("profile", "exp"))
    named = [int(word) for word in ARMS[f"{skew}-gh"].title.split() if word.isdigit()]
    assert named in ([], [round(max(counts) / min(counts))])


@pytest.mark.parametrize("scale", SCALES)
def test_the_main_table_shares_its_cells_with_the_tables_before_it(scale: str) -> None:
    main, pilot, methods = by_arm("cifar100", scale), by_arm("pilot", scale), by_arm("methods", scale)
    assert len(main) == 3 * 5 * 3, "imbalances, methods, arms"
    assert all(main[arm] == pilot[arm] for arm in ("base", "two-stage", "gh"))
    assert all(main[arm] == cell for arm, cell in methods.items())


def test_the_main_table_leaves_the_largest_class_as_it_is() -> None:
    for arm, cell in by_arm("cifar100", "paper").items():
        data, imbalance = cell.recipe.data.options, arm.removeprefix("imbalance").split("-")[0]
        assert "largest" not in data
        assert data["imbalance"] == (int(imbalance) if imbalance.isdigit() else 100)
    dnc = by_arm("cifar100", "paper")["imbalance50-dnc-gh"].recipe
    assert dnc.stages is not None
    assert (dnc.stages.name, dnc.method.name, dnc.arm) == ("dnc", "simclr", "gh")


@pytest.mark.parametrize("table", ["imagenet-lt", "places-lt"])
def test_the_large_sets_have_the_papers_recipe_or_none(table: str, tmp_path: Path) -> None:
    paper = by_arm(table, "paper")
    assert len(paper) == 15
    assert paper[f"{table}-gh"].recipe == get_recipe(table)
    assert paper[f"{table}-sdclr-base"].recipe.method.options["prune"] == 0.1
    assert {cell.recipe.name for cell in by_arm(table, "tiny").values()} == {"digits-lt"}
    with pytest.raises(InputError, match=f"table {table} has no scale small; give --scale paper with --data PATH"):
        table_cells(table, "small", seeds=1, data=None)
    with pytest.raises(InputError, match=r"needs the images and the lists .* give their folder with --data PATH"):
        reproduce(table, "paper", seeds=1, out=tmp_path / "runs")
    with pytest.raises(InputError, match="holds no"):
        reproduce(table, "paper", seeds=1, data=str(tmp_path), out=tmp_path / "runs")


def test_every_method_is_in_a_table() -> None:
    methods = {cell.recipe.method.name for table in TRAINED for cell in by_arm(table, "tiny").values()}
    assert methods == set(METHOD_INFO)


def test_a_familys_arms_differ_in_gh_alone() -> None:
    cells = by_arm("families", "small")
    for gh, control in get_table("families").contrasts:
        one, other = cells[gh].recipe, cells[control].recipe
        assert one.set(["harmonizer=none"]) == other
    simclr, vicreg = (cells[arm].recipe.schedule.options for arm in ("gh", "vicreg-gh"))
    for name in ("learning_rate", "middle"):
        assert vicreg[name] == pytest.approx(0.03 * simclr[name])


def test_the_levers_are_all_there_is_to_set() -> None:
    """Each setting of GH that the paper's ablations change, and those that are ours."""
    gh = get_recipe("cifar100-lt-small").harmonizer.options
    changed = {
        name
        for cell in by_arm("levers", "small").values()
        for name, value in cell.recipe.harmonizer.options.items()
        if value != gh.get(name)
    }
    assert changed == {
        *("anchors", "weight", "momentum", "warm_up", "update_every", "max_iterations", "sinkhorn_temperature"),
        *("prediction_temperature", "population", "prior", "queue"),
    }
    small_batch = by_arm("levers", "small")["batch-128-gh"].recipe
    assert (small_batch.batch_size, small_batch.schedule.options["learning_rate"]) == (128, "auto")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["dnc-gh", "byol-gh", "imagenet-lt-sdclr-gh"])
def test_cells_of_the_new_tables_run(arm: str, tmp_path: Path) -> None:
    tables = {"dnc-gh": "cifar100", "byol-gh": "families", "imagenet-lt-sdclr-gh": "imagenet-lt"}
    train(by_arm(tables[arm], "tiny")[arm].recipe, tmp_path / arm)
    assert evaluate(tmp_path / arm)["probe"]["average"] > 10
