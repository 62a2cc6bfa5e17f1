"""benchmarks/peers compares like with like: one policy, one loss, one network; its ratios are taken round by round."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from evensphere.data.augment import Views
from evensphere.data.source import Batch
from evensphere.ops.contrast import info_nce
from evensphere.recipes.part import build

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/peers."""
    monkeypatch.syspath_prepend(str(PEERS))
    return import_module


def test_all_have_the_same_policy(peer: Any) -> None:
    """Gray views, and the moments that crops and jitter leave, over the same images: blocks of random colours."""
    setting = peer("setting")
    count = 500
    blocks = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
    pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    torch.manual_seed(0)
    plain = torch.stack([peer("plain").policy()(image) for image in pil])
    lightly = torch.stack([peer("lightly_simclr").transform()(image)[0] for image in pil])
    views: Views = build("views", setting.Setting("resnet18", "fp32", 8).recipe.views, seed=0)
    ours = views(Batch(images, torch.arange(count)), 0)[0]
    for name, found in (("plain", plain), ("lightly", lightly), ("ours", ours)):
        pixels = found * torch.tensor(setting.STD)[:, None, None] + torch.tensor(setting.MEAN)[:, None, None]
        gray = (pixels.amax(1) - pixels.amin(1) < 0.01).all(2).all(1).float().mean()
        assert 0.13 < gray < 0.28, name
        assert pixels.mean() == pytest.approx(0.47, abs=0.03), name
        assert pixels.std() == pytest.approx(0.26, abs=0.02), name
        assert _edges(found) == pytest.approx(_edges(ours), rel=0.1), name


def _edges(views: Tensor) -> float:
    """How much neighbouring pixels differ: the less, the smaller the crops that were enlarged to the view."""
    return float(views.diff(dim=3).abs().mean())


def test_all_have_the_same_loss(peer: Any) -> None:
    z1, z2 = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))
    ours = info_nce(z1, z2, 0.2).mean()
    torch.testing.assert_close(peer("plain").nt_xent(z1, z2), ours)
    lightly = peer("lightly.loss").NTXentLoss(temperature=0.2)
    torch.testing.assert_close(lightly(z1, z2), ours)


@pytest.mark.parametrize("name", ["evensphere + GH", "bare backbone", "lightly", "torchvision + torch"])
def test_every_subject_takes_steps(peer: Any, name: str) -> None:
    subject, setting = peer("subject"), peer("setting").Setting("resnet-small", "fp32", 8, images=32, workers=0)
    assert list(subject.SUBJECTS)[:1] == ["evensphere + GH"]
    assert subject.seconds_of(subject.build(name, setting), 2) > 0


def test_ratios_are_taken_round_by_round(peer: Any) -> None:
    run = peer("run")
    seconds = {
        (run.OURS, "fp32"): [1.0, 2.0, 4.0],
        (run.BARE, "fp32"): [0.5, 1.0, 2.0],
        (run.LIGHTLY, "fp32"): [2.0, 4.0, 8.0],
        (run.PLAIN, "fp32"): [3.0, 2.0, 4.0],
        (run.OURS, "bf16"): [0.5, 1.0, 2.0],
        (run.BARE, "bf16"): [0.4, 0.8, 1.6],
        (run.LIGHTLY, "bf16"): [1.5, 1.0, 1.0],
        (run.PLAIN, "bf16"): [1.0, 1.0, 1.0],
    }
    rows = {row.what: row for row in run.rows(seconds, batch=100)}
    assert (rows["evensphere + GH, fp32"].median, rows["evensphere + GH, fp32"].ratio) == (2000, 2)
    assert rows["evensphere + GH, bf16"].ratio == pytest.approx(1.25)
    assert rows["lightly, bf16, speed"].median == 100
    assert rows["against lightly: fp32 and fp32"][2:5] == (2, 2, 2)
    assert rows["against lightly: bf16 and fp32, each at its best"][2:5] == (4, 4, 4)
    assert rows["against torchvision + torch: bf16 and bf16"][2:5] == (1, 0.5, 2)
    assert len(rows) == 8 + 8 + 6
    fp32 = {key: value for key, value in seconds.items() if key[1] == "fp32"}
    assert [row.what for row in run.rows(fp32, 100)][-2:] == [
        "against lightly: fp32 and fp32", "against torchvision + torch: fp32 and fp32"
    ]  # fmt: skip


@pytest.mark.slow
def test_the_command_writes_its_lines_and_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "peers.jsonl"
    command = [sys.executable, str(PEERS / "run.py"), "--network", "resnet-small", "--batch", "8", "--rounds", "2"]
    subprocess.run([*command, "--precisions", "fp32", "--out", str(out)], check=True, timeout=600)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == 4 + 4 + 2
    assert all(line["n"] == 2 and line["batch"] == 8 and line["packages"]["lightly"] for line in lines)
    commands = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if file.exists()]
    assert not [one for one in commands if str(PEERS / "subject.py").encode() in one]
