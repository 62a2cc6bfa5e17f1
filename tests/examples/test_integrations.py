"""The examples with other libraries: short, three lines more than without GH, and they train.

`make integrations` runs each in an environment that holds what it says it needs and nothing else.
"""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"

# by what they need beside evensphere
NEEDS = {
    "own_loop": "evensphere",
    "lightly_simclr": "lightly",
    "lightly_byol": "lightly",
    "lightly_vicreg": "lightly",
    "lightly_dino": "lightly",
    "lightning_callback": "lightning",
    "accelerate_simclr": "accelerate",
    "stable_pretraining_simclr": "stable_pretraining",
}
WITH_GH_MARKED = [name for name in NEEDS if name != "lightning_callback"]  # of which a callback is the one line

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of their own future


def source_of(name: str) -> str:
    return (EXAMPLES / f"{name}.py").read_text()


def need(name: str) -> None:
    if find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed here")


def run(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What an example leaves behind."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "long_tailed_digits", raising=False)  # which seeds torch
    monkeypatch.setenv("SPT_CACHE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with torch.random.fork_rng():
        exec(compile(source, "example", "exec"), names)
    return names


@pytest.mark.parametrize("name", [*NEEDS, "scikit_learn_encoder", "long_tailed_digits"])
def test_it_is_short(name: str) -> None:
    assert len(source_of(name).splitlines()) <= 60


@pytest.mark.parametrize("name", WITH_GH_MARKED)
def test_gh_is_three_lines(name: str) -> None:
    added = [line for line in source_of(name).splitlines() if line.rstrip().endswith("# GH")]
    kept = name == "accelerate_simclr"  # whose state goes with Accelerate's, which is a line more
    assert len(added) == 3 + kept


@pytest.mark.integration
@pytest.mark.parametrize("name", NEEDS)
def test_it_trains_with_gh(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    need(name)
    left = run(source_of(name), monkeypatch, tmp_path)
    harmonizer = left["harmonizer"]
    assert all(math.isfinite(loss) for loss in left.get("losses", []))
    assert harmonizer.steps_taken == 12 * len(left["loader"])
    uniform = torch.full_like(harmonizer.prior, 1 / len(harmonizer.prior))
    assert (harmonizer.prior - uniform).abs().sum() > 0.2, "pi has left uniform"
    assert harmonizer.prior.sum().item() == pytest.approx(1, abs=1e-5)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    scores = eval(line.partition("percent: ")[2])
    assert set(scores) == {"average", "many", "medium", "few"}
    assert scores["average"] > 70, "chance is 10"


@pytest.mark.integration
@pytest.mark.parametrize("name", [name for name in WITH_GH_MARKED if NEEDS[name] in ("evensphere", "lightly")])
def test_without_the_three_lines_it_is_the_library_alone(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need(name)
    lines = source_of(name).replace("epochs = 12", "epochs = 1").splitlines()
    alone = "\n".join(line for line in lines if not line.rstrip().endswith("# GH"))
    assert "armonizer(" not in alone.partition('"""\n')[2]
    left = run(alone, monkeypatch, tmp_path)
    assert "harmonizer" not in left
    assert all(math.isfinite(loss) for loss in left["losses"])


@pytest.mark.integration
def test_the_encoder_in_a_grid_search(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = run(source_of("scikit_learn_encoder"), monkeypatch, tmp_path)
    assert left["features"].shape == (len(left["test_images"]), 64)
    assert left["score"] > 0.85
    assert "% right with {'encoder__method'" in capsys.readouterr().out
