"""Runs that begin with weights from elsewhere: twins begin with them too, and it is written down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.errors import InputError
from evensphere.nn.backbone import resnet_small
from evensphere.recipes.network import build_method
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

CLI = CliRunner()
TINY = ["epochs=2", "backbone.width=4", "batch_size=64", "evaluate_every=2 epochs"]


def tiny(*settings: str) -> Recipe:
    return get_recipe("digits-lt").set([*TINY, *settings])


def foreign(file: Path, width: int = 4) -> dict[str, torch.Tensor]:
    """A checkpoint as solo-learn writes them."""
    torch.manual_seed(3)
    backbone = nn.ModuleDict({"backbone": resnet_small(1, width, stages=2), "projector": nn.Linear(4, 4)})
    torch.save({"state_dict": backbone.state_dict(), "epoch": 3}, file)
    return backbone["backbone"].state_dict()


def test_the_run_begins_with_them_and_says_so(tmp_path: Path) -> None:
    state = foreign(tmp_path / "solo.ckpt")
    out = tmp_path / "run"
    given = ["train", "digits-lt", "--init", str(tmp_path / "solo.ckpt"), "--out", str(out)]
    settings = [word for setting in TINY for word in ("--set", setting)]
    done = CLI.invoke(app, [*given, *settings])
    assert done.exit_code == 0, done.output
    assert "tensors behind 'state_dict.backbone.' (named as by torchvision or timm)" in done.output.replace("\n", " ")
    assert "left out: state_dict.projector (2)" in done.output.replace("\n", " ")
    begun = RunDir(out).read_recipe()
    assert begun["init"] == str(tmp_path / "solo.ckpt")
    assert begun["resolved"]["init"]["tensors"] == len(state)
    assert begun["resolved"]["init"]["left_out"] == {"state_dict.projector": 2}
    random = train(tiny(), tmp_path / "random")
    first = [RunDir(run).read_metrics()[0]["loss"] for run in (out, random)]
    assert first[0] != first[1]
    (tmp_path / "solo.ckpt").unlink()
    evaluate(out, metrics=["knn"])
    train(tiny(), out, resume=True)  # what it began with is its own by now


def test_a_twin_begins_with_them_too(tmp_path: Path) -> None:
    from rich.console import Console

    from evensphere.recipes.beginning import Beginning

    state = foreign(tmp_path / "solo.ckpt")
    recipe = tiny("method=moco", f"init={tmp_path / 'solo.ckpt'}")
    method = build_method(recipe, 1, 383, Beginning(recipe, Console(quiet=True)))
    held = [name for name, value in method.state_dict().items() if name.endswith("conv1.weight") and value.dim() == 4]
    wanted = {name: value for name, value in state.items() if name.endswith("conv1.weight")}
    assert len(held) == 2 * len(wanted)
    for name in held:
        assert any(value.shape == method.state_dict()[name].shape for value in wanted.values())
        assert any(torch.equal(value, method.state_dict()[name]) for value in wanted.values())


def test_a_run_of_ours_is_gone_on_with(tmp_path: Path) -> None:
    first = RunDir(train(tiny(), tmp_path / "first"))
    second = train(tiny(f"init={first.encoder_file}", "seed=4"), tmp_path / "second")
    assert RunDir(second).read_recipe()["resolved"]["init"]["left_out"] == {}
    assert load_file(first.encoder_file).keys() == load_file(RunDir(second).encoder_file).keys()


def test_weights_that_do_not_fit_begin_nothing(tmp_path: Path) -> None:
    foreign(tmp_path / "wide.ckpt", width=8)
    save_file({"conv1.weight": torch.ones(4, 1, 3, 3)}, tmp_path / "less.safetensors")
    for name, sentence in (
        ("wide.ckpt", "has the shape"),
        ("less.safetensors", "lacks"),
        ("absent.pt", "no such file"),
    ):
        with pytest.raises(InputError, match=sentence):
            train(tiny(f"init={tmp_path / name}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_begins_with_the_same_file_or_not_at_all(tmp_path: Path) -> None:
    foreign(tmp_path / "solo.ckpt")
    recipe = tiny(f"init={tmp_path / 'solo.ckpt'}")
    run = RunDir(train(recipe, tmp_path / "run"))
    before = run.encoder_file.read_bytes()
    run.encoder_file.unlink()
    for step in run.checkpoint_steps():
        run.checkpoint_file(step).unlink()
    train(recipe, run.path, resume=True)
    assert run.encoder_file.read_bytes() == before
    run.encoder_file.unlink()
    for step in run.checkpoint_steps():
        run.checkpoint_file(step).unlink()
    foreign_again = torch.load(tmp_path / "solo.ckpt", weights_only=True)
    foreign_again["state_dict"]["backbone.conv1.weight"] += 1
    torch.save(foreign_again, tmp_path / "solo.ckpt")
    with pytest.raises(InputError, match="is not the file that this run was begun with"):
        train(recipe, run.path, resume=True)


def test_a_branch_begins_where_its_source_did(tmp_path: Path) -> None:
    foreign(tmp_path / "solo.ckpt")
    source = train(tiny(), tmp_path / "source")
    with pytest.raises(InputError, match="begun with init=None"):
        train(tiny(f"init={tmp_path / 'solo.ckpt'}"), tmp_path / "run", branch=source)


def test_runs_with_random_weights_say_nothing_of_it(tmp_path: Path) -> None:
    content = tiny().to_json()
    assert "init" not in content
    assert "init" not in json.dumps(Recipe.from_json(content).to_json())
