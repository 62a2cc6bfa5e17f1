"""Checkpoints: what is damaged is noticed and passed over, what is best is kept."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from evensphere.engine.checkpoint import checksum, describe_encoder, load_encoder, read_checkpoint, save_encoder
from evensphere.engine.evaluate import Evaluation, evaluate_encoder
from evensphere.errors import InputError
from evensphere.recipes import scoring
from evensphere.recipes.network import build_encoder
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

RECIPE = get_recipe("digits-lt").set(
    ["epochs=4", "backbone.width=4", "batch_size=128", "checkpoint_every=2 steps", "evaluate_every=1 epochs"]
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(RECIPE, tmp_path_factory.mktemp("runs") / "run"))


@pytest.fixture
def run(finished: RunDir, tmp_path: Path) -> RunDir:
    """A copy of it without its encoder, so that it goes on."""
    copy = RunDir(shutil.copytree(finished.path, tmp_path / "run"))
    copy.encoder_file.unlink()
    return copy


def go_on(run: RunDir) -> str:
    """Resume; what was said."""
    said = io.StringIO()
    train(RECIPE, run.path, resume=True, console=Console(file=said, width=1000))
    return said.getvalue()


# --- damage


def flip(file: Path) -> None:
    """One bit of a weight, in the middle of the file."""
    content = bytearray(file.read_bytes())
    place = content.find(
        torch.load(file, weights_only=True)["optimizer"]["state"][0]["momentum_buffer"].numpy().tobytes()
    )
    assert place > 0
    content[place] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": flip,
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-1000]),
    "empty": lambda file: file.write_bytes(b""),
    "another file": lambda file: file.write_bytes(b"not a checkpoint"),
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage: str, run: RunDir, finished: RunDir) -> None:
    assert run.checkpoint_steps()[-2:] == [10, 12]
    DAMAGES[damage](run.checkpoint_file(12))
    said = go_on(run)
    assert "Going on from the checkpoint of step 10; the steps after it, of which 12 is the last one known" in said
    if damage != "gone":
        assert "step-000000012.pt" in said
        assert "the one before is taken" in said
        assert run.checkpoint_file(12).with_name("step-000000012.pt.damaged").exists()
    assert run.metrics_file.read_bytes() == finished.metrics_file.read_bytes()
    assert run.encoder_file.read_bytes() == finished.encoder_file.read_bytes()
    assert read_checkpoint(run, 12)["step"] == 12, "it was written again"


def test_if_none_is_whole_nothing_is_changed(run: RunDir) -> None:
    for step in run.checkpoint_steps():
        run.checkpoint_file(step).write_bytes(b"not a checkpoint")
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"None of the \d checkpoints .* can be used; the newest: .*step-000000012"):
        go_on(run)
    after = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert after == before


def test_metrics_that_were_lost_are_written_again(run: RunDir, finished: RunDir) -> None:
    """Cut after the checkpoint of step 10 was written and before the last one."""
    size = read_checkpoint(run, 10)["metrics_size"]
    run.truncate_metrics(size + 10)
    assert "ends before the checkpoint of step 12" in go_on(run)
    assert run.metrics_file.read_bytes() == finished.metrics_file.read_bytes()


def test_checkpoints_of_versions_that_wrote_no_checksum_are_read(run: RunDir) -> None:
    state = read_checkpoint(run, 12)
    assert "sha256" not in state
    torch.save(state, run.checkpoint_file(12))
    assert checksum(read_checkpoint(run, 12)) == checksum(state)


def test_a_checksum_tells_any_two_states_apart() -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3), "b": [1, 0.5, None, True, "text"], "c": {1: torch.zeros(())}}
    same = {
        "c": {1: torch.zeros(())},
        "b": [1, 0.5, None, True, "text"],
        "a": torch.arange(6.0).reshape(3, 2).T.T.reshape(2, 3),
    }
    assert checksum(state) == checksum(same), "the order of the names says nothing"
    others = [
        {**state, "a": torch.arange(6.0).reshape(3, 2)},
        {**state, "a": torch.arange(6).reshape(2, 3)},
        {**state, "a": torch.arange(6.0).reshape(2, 3).bfloat16()},
        {**state, "b": [1, 0.5, None, True, "test"]},
        {**state, "b": [0.5, 1, None, True, "text"]},
        {**state, "c": {2: torch.zeros(())}},
        {**state, "c": {1: -torch.zeros(())}},
        {**state, "d": torch.zeros(0)},
    ]
    sums = {checksum(state), *(checksum(other) for other in others)}
    assert len(sums) == len(others) + 1


def test_a_damaged_encoder_is_refused(finished: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(finished.path, tmp_path / "run"))
    encoder = build_encoder(Recipe.from_json(run.read_recipe()), 1)
    load_encoder(run, encoder)
    content = bytearray(run.encoder_file.read_bytes())
    content[-1] ^= 1
    run.encoder_file.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_encoder(run, encoder)


# --- the best one, and how many are kept


def test_the_best_encoder_is_that_of_the_highest_validation_accuracy(finished: RunDir) -> None:
    scores = [(e["knn"], e["step"] + 1) for e in finished.read_metrics() if e["event"] == "evaluation"]
    assert len(scores) == 4
    highest = max(score for score, _ in scores)
    first = next(step for score, step in scores if score == highest)
    assert finished.best_evaluation() == (first, highest)
    assert first in finished.checkpoint_steps(), "its checkpoint is never pruned"
    encoder = build_encoder(Recipe.from_json(finished.read_recipe()), 1)
    load_encoder(finished, encoder, "best")
    kept = read_checkpoint(finished, first)["model"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, kept[f"method.encoder.{name}"])


def test_the_best_encoder_can_be_evaluated(finished: RunDir) -> None:
    last, best = evaluate(finished.path), evaluate(finished.path, encoder="best")
    assert finished.read_results("test") == last
    assert finished.read_results("test", "best") == best
    assert (finished.path / "eval-best.json").exists()


def test_the_best_encoder_is_known_by_what_was_evaluated(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that still trains may find a better one meanwhile."""
    run = RunDir(shutil.copytree(finished.path, tmp_path / "run"))
    expected = describe_encoder(run.best_file)["sha256"]

    def meanwhile(*given: Any) -> Evaluation:
        other = build_encoder(RECIPE, 1)
        save_encoder(run.best_file, other, {})
        return evaluate_encoder(*given)

    monkeypatch.setattr(scoring, "evaluate_encoder", meanwhile)
    results = evaluate(run.path, metrics=["knn"], encoder="best")
    assert describe_encoder(run.best_file)["sha256"] != expected
    assert results["settings"]["encoder"] == expected


def test_without_validation_images_none_is_best(tmp_path: Path) -> None:
    recipe = RECIPE.set(["data.validation_per_class=0", "epochs=1"])
    run = RunDir(train(recipe, tmp_path / "run"))
    assert run.best_evaluation() is None
    assert not run.best_file.exists()
    with pytest.raises(InputError, match="no best"):
        evaluate(run.path, encoder="best")


def test_a_tie_is_the_earlier_one_s_and_no_score_is_none(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step, score in enumerate([None, 50.0, 60.0, 60.0, 55.0]):
        run.append_metrics({"event": "evaluation", "step": step, "epoch": 0, "knn": score, "knn_few": 99.0})
    assert run.best_evaluation() == (3, 60.0)


@pytest.mark.parametrize("keep", [1, 4])
def test_the_last_k_are_kept(keep: int, tmp_path: Path) -> None:
    settings = ["epochs=4", "backbone.width=4", "checkpoint_every=2 steps", "monitor="]
    recipe = get_recipe("digits-lt", "base").set([*settings, f"keep_checkpoints={keep}"])
    run = RunDir(train(recipe, tmp_path / "run"))
    assert run.checkpoint_steps() == [2, 4, 6, 8, 10, 12][-keep:]


def test_keeping_none_is_refused() -> None:
    with pytest.raises(InputError, match="keep_checkpoints = 0 was given; it takes a whole number from 1"):
        RECIPE.set(["keep_checkpoints=0"])
