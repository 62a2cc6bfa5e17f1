"""A run that branches off another is what it would have been had it trained from the start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evensphere.diagnosis.look import Revisited
from evensphere.engine.checkpoint import read_checkpoint
from evensphere.errors import InputError
from evensphere.recipes.images import splits_of
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

TINY = ["epochs=4", "backbone.width=4", "batch_size=64", "evaluate_every=2 epochs"]


def tiny(arm: str = "gh", *settings: str) -> Recipe:
    return get_recipe("digits-lt", arm).set([*TINY, *settings])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(tiny(), tmp_path_factory.mktemp("first") / "gh"))


@pytest.mark.parametrize(
    "recipe",
    [tiny("two-stage"), tiny("gh", "harmonizer.weight=3.0"), tiny("gh", "harmonizer.prior=uniform")],
    ids=["control", "weight", "prior"],
)
def test_a_branch_equals_the_whole_run(first: RunDir, tmp_path: Path, recipe: Recipe) -> None:
    whole = RunDir(train(recipe, tmp_path / "whole"))
    branch = RunDir(train(recipe, tmp_path / "branch", branch=first.path))
    assert branch.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    assert branch.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    assert branch.read_recipe() == whole.read_recipe()
    assert min(branch.checkpoint_steps()) == 12, "the first two epochs were not trained again"


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (tiny("base"), "schedule"),
        (tiny("two-stage", "seed=1"), "seed"),
        (tiny("two-stage", "epochs=6"), "epochs"),
        (tiny("gh", "harmonizer.warm_up=0.25"), "warm_up"),
    ],
)
def test_runs_that_began_differently_are_no_branches(
    first: RunDir, tmp_path: Path, recipe: Recipe, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        train(recipe, tmp_path / "branch", branch=first.path)
    assert not (tmp_path / "branch").exists()


def test_other_anchors_start_from_a_census_of_the_shared_network(first: RunDir, tmp_path: Path) -> None:
    branch = RunDir(train(tiny("gh", "harmonizer.anchors=5"), tmp_path / "branch", branch=first.path))
    started = [read_checkpoint(run, 12) for run in (first, branch)]
    methods = [{n: v for n, v in state["model"].items() if n.startswith("method.")} for state in started]
    assert all(torch.equal(value, methods[1][name]) for name, value in methods[0].items()), "the first stage is shared"

    harmonized = [event for event in branch.read_metrics() if event.get("gh_weight", 0) > 0]
    assert harmonized[0]["step"] == 12
    state = read_checkpoint(branch, 24)["model"]
    images = branch.read_recipe()["resolved"]["num_images"]
    counted = state["harmonizer.prior"] * images  # nothing recomputes pi in so short a run: it is still the census's
    assert torch.allclose(counted, counted.round(), atol=1e-3)
    assert counted.sum().round() == images, "every image was counted"
    assert len(counted) == 5 == branch.read_recipe()["resolved"]["anchors"]
    assert counted.max() > counted.min() + 1, "and pi is no guess"
    logged = [(e["step"], e["prior"]) for e in branch.read_metrics() if e["event"] == "population"]
    assert logged == [(11, state["harmonizer.prior"].tolist())]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "64-true"])
def test_a_branch_with_other_anchors_resumes_exactly(precision: str, tmp_path: Path) -> None:
    settings = ["checkpoint_every=1 epoch", f"precision={precision}", "views.jitter=[0.4,0.4,0,0]"]
    recipe = tiny("gh", "harmonizer.anchors=5", *settings)
    stem = RunDir(train(tiny("gh", *settings), tmp_path / "stem"))
    whole = RunDir(train(recipe, tmp_path / "whole", branch=stem.path))
    stopped = RunDir(train(recipe, tmp_path / "stopped", branch=stem.path))
    stopped.encoder_file.unlink()
    for step in (18, 24):
        stopped.checkpoint_file(step).unlink()
    assert stopped.checkpoint_steps() == [12], "stopped before its first own checkpoint"
    train(recipe, stopped.path, resume=True)
    assert stopped.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    assert stopped.metrics_file.read_bytes() == whole.metrics_file.read_bytes()


def test_a_branch_with_past_scores_can_be_looked_at(first: RunDir, tmp_path: Path) -> None:
    branch = RunDir(train(tiny("gh", "harmonizer.queue=50"), tmp_path / "branch", branch=first.path))
    assert min(branch.checkpoint_steps()) == 12
    assert Revisited(branch, most=50).at(12).embeddings is not None, "the first checkpoint is whole"


def lines(run: RunDir) -> list[str]:
    """Its metrics; the order of what one step wrote does not matter."""
    return sorted(run.metrics_file.read_text().splitlines())


@pytest.mark.parametrize("queue", [0, 50])
def test_another_floor_is_that_of_the_whole_run(first: RunDir, tmp_path: Path, queue: int) -> None:
    stem = first if not queue else RunDir(train(tiny("gh", f"harmonizer.queue={queue}"), tmp_path / "stem"))
    recipe = tiny("gh", "harmonizer.floor=100", f"harmonizer.queue={queue}")
    whole = RunDir(train(recipe, tmp_path / "whole"))
    branch = RunDir(train(recipe, tmp_path / "branch", branch=stem.path))
    assert branch.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    priors = [read_checkpoint(run, 12)["model"]["harmonizer.prior"] for run in (whole, branch)]
    assert torch.equal(*priors)
    assert lines(branch) == lines(whole), "the pi that is logged is its own"


def test_how_sinkhorn_went_is_not_handed_down(first: RunDir, tmp_path: Path) -> None:
    branch = RunDir(train(tiny("gh", "harmonizer.max_iterations=3"), tmp_path / "branch", branch=first.path))
    assert "pace" not in read_checkpoint(branch, 12)["model"]["harmonizer._extra_state"]


@pytest.mark.parametrize(
    "setting", ["harmonizer.queue=50", "harmonizer.momentum=[0.9,0.99]"], ids=["queue", "momentum-afterwards"]
)
def test_what_changes_nothing_before_keeps_the_population(first: RunDir, tmp_path: Path, setting: str) -> None:
    branch = RunDir(train(tiny("gh", setting), tmp_path / "branch", branch=first.path))
    memories = [read_checkpoint(run, 12)["model"]["harmonizer._extra_state"]["population"] for run in (first, branch)]
    assert torch.equal(memories[0]["values"], memories[1]["values"])
    acted = [run.read_metrics() for run in (first, branch)]
    steps = [next(event for event in events if event.get("gh_weight", 0) > 0) for events in acted]
    assert steps[0]["ssl"] == steps[1]["ssl"]
    assert branch.encoder_file.exists()


def test_a_queue_that_begins_empty_resumes_exactly(first: RunDir, tmp_path: Path) -> None:
    recipe = tiny("gh", "harmonizer.queue=50")
    whole = RunDir(train(recipe, tmp_path / "whole", branch=first.path))
    stopped = RunDir(train(recipe, tmp_path / "stopped", branch=first.path))
    stopped.encoder_file.unlink()
    for step in stopped.checkpoint_steps():
        if step > 12:
            stopped.checkpoint_file(step).unlink()
    train(recipe, stopped.path, resume=True)
    assert stopped.encoder_file.read_bytes() == whole.encoder_file.read_bytes()


def test_a_branch_that_is_refused_leaves_nothing(first: RunDir, tmp_path: Path) -> None:
    shutil.copytree(first.path, short := tmp_path / "short")
    for step in RunDir(short).checkpoint_steps():
        RunDir(short).checkpoint_file(step).unlink()
    with pytest.raises(InputError, match="has no checkpoint of step 12"):
        train(tiny("two-stage"), tmp_path / "branch", branch=short)
    with pytest.raises(InputError, match=r"images=list\.txt was given, and the run to branch off was begun with all"):
        train(tiny("two-stage", "images=list.txt"), tmp_path / "branch", branch=first.path)
    assert not (tmp_path / "branch").exists()


def test_a_branch_may_name_the_images_of_its_first_stage(tmp_path: Path) -> None:
    names = [f"digits-{i}.txt" for i in range(2)]
    source = splits_of(tiny()).pretrain
    for file, begin in zip(names, (0, 1), strict=True):
        (tmp_path / file).write_text("\n".join(source.location(i) for i in range(begin, 200 + begin)))
    mine, other = (f"images={tmp_path / file}" for file in names)
    stem = train(tiny("gh", mine), tmp_path / "stem")
    named, unnamed, whole = (
        RunDir(train(tiny("two-stage", *images), tmp_path / out, branch=branch))
        for out, images, branch in (("named", [mine], stem), ("unnamed", [], stem), ("whole", [mine], None))
    )
    assert named.read_recipe() == unnamed.read_recipe() == whole.read_recipe()
    assert named.encoder_file.read_bytes() == unnamed.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    with pytest.raises(InputError, match="was trained on other images"):
        train(tiny("two-stage", other), tmp_path / "other", branch=stem)
    assert not (tmp_path / "other").exists()


def test_a_branch_may_ask_for_the_storage_that_could_not_be_had(tmp_path: Path) -> None:
    """Digits are in memory already, so that there is no cache of them."""
    stem = RunDir(train(tiny("gh", "storage=cache"), tmp_path / "stem"))
    had = stem.read_recipe()["storage"]
    assert had != "cache"
    control = tiny("two-stage", "storage=cache")
    branch = RunDir(train(control, tmp_path / "branch", branch=stem.path))
    assert branch.read_recipe()["storage"] == had
    train(control, branch.path, resume=True)
    with pytest.raises(InputError, match=f"begun with storage={had}, and files was given"):
        train(tiny("two-stage", "storage=files"), tmp_path / "files", branch=stem.path)


def test_only_a_run_with_a_warm_up_can_be_branched_off(tmp_path: Path) -> None:
    base = train(tiny("base", "epochs=1"), tmp_path / "base")
    with pytest.raises(InputError, match="no warm-up"):
        train(tiny("base", "epochs=1"), tmp_path / "branch", branch=base)
    with pytest.raises(InputError, match="not a run folder"):
        train(tiny(), tmp_path / "branch", branch=tmp_path / "nowhere")
