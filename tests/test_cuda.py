"""What differs on a GPU: other kernels, other memory, no order of sums. Runs where there is one.

That a step never waits for the GPU is tested beside what it is about: tests/engine/test_train.py, tests/gh, tests/ops.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from evensphere.data.augment import VIEWS, Views
from evensphere.data.source import Batch
from evensphere.gh.harmonizer import Harmonizer
from evensphere.ops.schedule import Progress

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

FULL = "32-true"


def train(out: Path, *settings: str, cpu: bool = False, resume: bool = False) -> list[dict[str, Any]]:
    """The logged steps of a short run of the command."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if cpu else {}
    chosen = [word for setting in ("data.largest=60", *settings) for word in ("--set", setting)]
    command = [sys.executable, "-m", "evensphere", "train", "digits-lt", "--out", str(out), *chosen]
    done = subprocess.run(
        [*command, *(["--resume"] if resume else [])],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "step"]


@pytest.mark.parametrize("policy", sorted(VIEWS))
def test_views_are_those_of_the_cpu(policy: str) -> None:
    views = Views(24, **VIEWS[policy])
    images = torch.randint(0, 256, (32, len(views.mean), 32, 32), dtype=torch.uint8)
    batch = Batch(images, torch.arange(32))
    there = views(batch._replace(images=images.cuda()), 3)
    for cpu, gpu in zip(views(batch, 3), there, strict=True):
        # a pixel next to a rounding of the hue may fall to the other side
        torch.testing.assert_close(gpu.cpu().mean(), cpu.mean(), atol=1e-3, rtol=0)
        assert (gpu.cpu() - cpu).abs().gt(0.05).float().mean() < 1e-3


def test_gh_is_that_of_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    steps = [[torch.randn(64, 16, generator=generator) for _ in range(2)] for _ in range(30)]
    losses, priors = [], []
    for device in ("cpu", "cuda"):
        harmonizer = Harmonizer(16, 64, 8, warm_up=0, ramp=0, update_every=1).to(device)
        index, told = torch.arange(64), []
        for step, views in enumerate(steps):
            seen, progress = tuple(z.to(device) for z in views), Progress(step, 1, 30)
            told.append(harmonizer(seen, index, progress).loss.cpu())
            harmonizer.after_step(seen, index, progress)
        losses.append(torch.stack(told))
        priors.append(harmonizer.prior.cpu())
    torch.testing.assert_close(losses[1], losses[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(priors[1], priors[0])


def test_a_run_begins_like_that_of_the_cpu(tmp_path: Path) -> None:
    here, there = (train(tmp_path / str(cpu), "epochs=1", f"precision={FULL}", cpu=cpu) for cpu in (True, False))
    for cpu, gpu in zip(here[:3], there[:3], strict=True):
        assert gpu["loss"] == pytest.approx(cpu["loss"], rel=1e-3)


@pytest.mark.parametrize("settings", [[], ["storage=device"], ["compile=true"], ["micro_batches=2"]])
def test_a_run_ends_well(settings: list[str], tmp_path: Path) -> None:
    steps = train(tmp_path / "run", "epochs=2", *settings)
    assert all(math.isfinite(event["loss"]) for event in steps)
    assert (tmp_path / "run" / "encoder.safetensors").is_file()


def test_a_resumed_run_is_the_run(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "epochs=4", "checkpoint_every=1 epochs", f"precision={FULL}")
    train(tmp_path / "cut", "epochs=4", "checkpoint_every=1 epochs", f"precision={FULL}")
    cut = tmp_path / "cut"
    newest = sorted((cut / "checkpoints").glob("*.pt"))
    for file in newest[1:]:
        file.unlink()
    (cut / "encoder.safetensors").unlink()
    again = train(cut, "epochs=4", "checkpoint_every=1 epochs", f"precision={FULL}", resume=True)
    assert [event["step"] for event in again] == [event["step"] for event in whole]
    assert again[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=1e-2)
