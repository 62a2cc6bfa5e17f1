"""The Python that pages show runs: all blocks of a page in one namespace, in order, in an empty folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.pages.reading import Page, pages

PAGES = [page for page in pages() if page.python]


def reader_has() -> dict[str, Any]:
    """What a page may take for granted: a loop's own things."""
    views = torch.randn(10, 8), torch.randn(10, 8)
    return {
        "dataset": [((torch.randn(8), torch.randn(8)), label) for label in range(10)],
        "model": torch.nn.Linear(8, 128),
        "criterion": torch.nn.functional.mse_loss,
        # in the middle of a step
        "batch": (views, torch.arange(10)),
        "z1": torch.randn(10, 64, requires_grad=True),
        "z2": torch.randn(10, 64, requires_grad=True),
        "loss": torch.zeros(()),
        # in a trainer's script
        "train_dataset": list(range(100)),
        "cfg": SimpleNamespace(method_kwargs=SimpleNamespace(proj_output_dim=128)),
        # labelled pictures, as scikit-learn hands them over
        "images": torch.randint(0, 256, (32, 8, 8), dtype=torch.uint8).numpy(),
        "labels": [0, 1] * 16,
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_it_runs(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = reader_has()
    for number, block in enumerate(page.python, start=1):
        exec(compile(block, f"{page.name}, Python block {number}", "exec"), names)


def test_pages_with_python_are_found() -> None:
    assert {"README.md", "docs/start/own-loop.md", "docs/extend.md"} <= {page.name for page in PAGES}


def test_the_loop_of_ones_own_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints GH's loss for each epoch: 0 in the warm-up, then acting, and both losses are finite."""
    (page,) = [page for page in PAGES if page.name == "docs/start/own-loop.md"]
    torch.manual_seed(0)
    exec(page.python[0], {})
    lines = capsys.readouterr().out.splitlines()
    losses = [(float(line.split()[3].rstrip(",")), float(line.split()[-1])) for line in lines]
    assert [gh > 0 for _, gh in losses] == [False, False, True, True]
    assert losses[1][0] < 5.5, "below the log of the 255 negatives"
