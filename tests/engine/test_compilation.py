"""Compiled networks train as the others do, up to rounding."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from evensphere.engine.compilation import check_compiler
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

TINY = ["epochs=2", "precision=32-true", "backbone=resnet-small", "backbone.width=8"]
TINY += ["backbone.stages=1", "harmonizer.anchors=4", "evaluate_every=2 epochs"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["simclr", "byol", "sdclr"])  # one network, a twin, weights that are masked
def test_a_compiled_run_learns_the_same(method: str, tmp_path: Path) -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++")):
        pytest.skip("there is no C++ compiler")
    runs = []
    for compiled in ("false", "true"):  # in processes of their own: signatures that are checked cannot be compiled
        settings = [*TINY, f"method={method}", f"compile={compiled}"]
        command = [
            sys.executable,
            "-c",
            "from evensphere.cli.main import app; app()",
            "train",
            "digits-lt",
            "--out",
            str(tmp_path / compiled),
        ]
        subprocess.run([*command, *(word for one in settings for word in ("--set", one))], check=True)
        runs.append(RunDir(tmp_path / compiled))
    plain, compiled_run = runs
    assert "compile" not in plain.read_recipe()
    assert compiled_run.read_recipe()["compile"] is True
    losses = [[event["loss"] for event in run.read_metrics() if event["event"] == "step"] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    theirs, ours = (load_file(run.encoder_file) for run in runs)
    assert theirs.keys() == ours.keys()
    assert all(ours[name].shape == theirs[name].shape for name in ours)


def test_without_a_compiler_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(InputError, match="none of g\\+\\+, clang\\+\\+, cl to compile with; install one"):
        train(get_recipe("digits-lt").set([*TINY, "compile=true"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(InputError, match="there is no my-compiler"):
        check_compiler()


def test_compile_is_true_or_false() -> None:
    with pytest.raises(InputError, match="compile = 'views' was given; it takes true or false"):
        get_recipe("digits-lt").set(["compile=views"])
