"""README's first five minutes, as each of its three readers goes through them: a clean clone, installed, and no more.

Every command runs as README shows it, to its end, in a shell; only the images and the loop's own things are put there
before. One thing is cut short: a run trains for a few of its epochs. What is not committed is not in the clone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.pages.reading import ROOT, read_page

SHORT = 'evensphere() {{ if [ "$1" = train ]; then set -- "$@" --set epochs={epochs}; fi; command evensphere "$@"; }}\n'

LOOP = """
import torch
dataset = [((torch.randn(8), torch.randn(8)), label) for label in range(20)]
model, criterion = torch.nn.Linear(8, 128), torch.nn.functional.mse_loss
"""


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed files, and beside them what pip made of them."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout that could be cloned")
    folder = tmp_path_factory.mktemp("clean")
    run("git", "clone", "--quiet", str(ROOT), "evensphere", cwd=folder)
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", "site", "./evensphere", cwd=folder)
    return folder / "evensphere"


def shell(script: str, clone: Path, here: Path) -> str:
    """What a block of README prints in a shell that has the installed package."""
    site = clone.parent / "site"
    path = f"{site / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return run("bash", "-euc", script, cwd=here, PATH=path, PYTHONPATH=str(site))


def block_after(words: str, clone: Path) -> str:
    """The first block of README after some of its words."""
    text = read_page(clone / "README.md").text
    assert text.count(words) == 1
    found = re.search(r"^```\w*\n(.*?)^```", text.partition(words)[2], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.slow
def test_somebody_with_images(clone: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for kind, (name, count) in enumerate({"common": 40, "seldom": 15, "rare": 8}.items()):
        (tmp_path / "path/to/images" / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(80 * kind, 80 * kind + 96, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "path/to/images" / name / f"{i}.png")
    (tmp_path / "path/to/images/common/cut-short.png").write_bytes(b"\x89PNG")
    shell(SHORT.format(epochs=3) + block_after("**On your own images**", clone), clone, tmp_path)
    mine = tmp_path / "runs/mine"
    recipe = json.loads((mine / "recipe.json").read_text())
    assert recipe["backbone"]["name"] == "resnet18"
    assert recipe["resolved"]["num_images"] == 63
    assert "cut-short.png" in (mine / "skipped.csv").read_text()
    assert json.loads((mine / "eval.json").read_text())["classes"] == ["common", "rare", "seldom"]
    assert {"diagnosis.html", "report.html", "encoder.safetensors"} <= {file.name for file in mine.iterdir()}
    assert (tmp_path / "look/contact_sheet.png").exists()


@pytest.mark.slow
def test_somebody_who_compares(clone: Path, tmp_path: Path) -> None:
    printed = shell(SHORT.format(epochs=20) + block_after("**A fair comparison**", clone), clone, tmp_path)
    recipes = {file.parent.name: json.loads(file.read_text()) for file in tmp_path.glob("runs/*/recipe.json")}
    assert all(recipe["epochs"] == 20 for recipe in recipes.values())
    arms = {name: recipe["arm"] for name, recipe in recipes.items()}
    assert arms == {"gh": "gh", "control": "two-stage", "base": "base"}
    assert "95 % interval" in printed
    assert (tmp_path / "runs/gh/report.html").exists()


@pytest.mark.slow
def test_somebody_with_a_loop(clone: Path, tmp_path: Path) -> None:
    loop = LOOP + block_after("**In a training loop of your own**", clone) + "print(loss.item())\n"
    (tmp_path / "loop.py").write_text(loop)
    printed = shell("python loop.py", clone, tmp_path)
    assert float(printed) > 0
