"""docs/add-a-method.md: its method works from outside the package, and the page shows what runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate

ROOT = Path(__file__).parents[2]
NAME = "own_method:AlignmentUniformity"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.delitem(sys.modules, "own_method", raising=False)


def test_the_page_shows_the_whole_file_in_at_most_60_lines() -> None:
    code = (ROOT / "examples" / "own_method.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "docs" / "add-a-method.md").read_text()
    assert len(code.splitlines()) <= 60


def test_its_loss_is_the_papers() -> None:
    torch.manual_seed(0)
    method = build("method", Part(NAME, weight=0.7, embedding_dim=6), encoder=resnet_small(1, width=4, stages=1))
    views = tuple(torch.randn(2, 5, 1, 8, 8))
    output = method(views, None, Progress(0))
    z1, z2 = (normalize(z.detach().double(), dim=1) for z in output.embeddings)
    loss = sum(float((z1[i] - z2[i]).norm()) ** 2 for i in range(5)) / 5
    for z in (z1, z2):
        pairs = [torch.exp(-2 * (z[i] - z[j]).norm() ** 2) for i in range(5) for j in range(5) if i != j]
        loss += 0.7 * float(torch.stack(pairs).mean().log()) / 2
    assert output.loss.item() == pytest.approx(loss, abs=1e-5)


@pytest.mark.parametrize("arm", ["base", "gh"])
def test_it_trains_with_gh_and_without(arm: str, tmp_path: Path) -> None:
    settings = [f"method={NAME}", "method.weight=0.5", "epochs=10", "backbone.width=8", "batch_size=64"]
    run = train(get_recipe("digits-lt", arm).set([*settings, "evaluate_every=10 epochs"]), tmp_path / "run")
    results = evaluate(run, metrics=["knn"], trust=True)
    assert results["knn"]["average"] > results["knn_untrained"]["average"]
