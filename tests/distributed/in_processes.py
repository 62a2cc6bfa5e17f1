"""Starts processes that find each other by a file, for tests of what they tell each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

_START = """
import sys
import torch, torch.distributed as dist
torch.set_num_threads(1)
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
given = torch.load(f"{folder}/given.pt")
"""
_END = """
torch.save(result, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def in_processes(world: int, script: str, given: dict[str, Any], folder: Path) -> list[Any]:
    """What each of `world` processes leaves as `result` when it runs a script that knows `rank`, `world`, `given`."""
    torch.save(given, folder / "given.pt")
    command = [sys.executable, "-c", _START + script + _END]
    processes = [
        subprocess.Popen([*command, str(rank), str(world), str(folder)], stderr=subprocess.PIPE, text=True)
        for rank in range(world)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]
