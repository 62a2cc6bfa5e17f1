"""Two machines, as two network namespaces joined by a cable that is cut and mended."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evensphere.rundir import RunDir

pytestmark = pytest.mark.slow

HOSTS = tuple(f"evensphere-{os.getpid()}-{side}" for side in "ab")
CABLE = tuple(f"es{os.getpid()}{side}" for side in "ab")  # its ends; the kernel takes 15 letters
ADDRESSES = ("10.213.0.1", "10.213.0.2")
PATIENCE = 10.0  # seconds until a host is given up
LIMIT = 900  # seconds; far beyond what any of this takes, on a busy machine too
SETTINGS = [
    "epochs=25", "checkpoint_every=2 steps", "evaluate_every=25 epochs", "precision=64-true", "backbone.width=4",
    "schedule.learning_rate=0.01", "schedule.middle=0.005",
]  # fmt: skip


def ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0 or not check, (arguments, done.stderr)


def why_not() -> str | None:
    """Why this machine cannot play two."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces are made by root on Linux"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    made = subprocess.run(["ip", "netns", "add", HOSTS[0]], capture_output=True, text=True, check=False)
    ip("netns", "del", HOSTS[0], check=False)
    return f"network namespaces cannot be made here ({made.stderr.strip()})" if made.returncode else None


@pytest.fixture
def hosts() -> Iterator[None]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    try:
        for host in HOSTS:
            ip("netns", "add", host)
        ip("link", "add", CABLE[0], "type", "veth", "peer", "name", CABLE[1])
        for host, end, address in zip(HOSTS, CABLE, ADDRESSES, strict=True):
            ip("link", "set", end, "netns", host)
            ip("-n", host, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", host, "link", "set", "lo", "up")
            ip("-n", host, "link", "set", end, "up")
        yield
    finally:
        for host in HOSTS:
            ip("netns", "del", host, check=False)


def start(out: Path, *more: str) -> list[subprocess.Popen[str]]:
    """The same command on both hosts."""
    command = [sys.executable, "-c", "from evensphere.cli.main import main; main()", "train", "digits-lt"]
    command += ["--out", str(out), "--nodes", "2", *more, *(f"--set={setting}" for setting in SETTINGS)]
    shared = {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29544", "EVENSPHERE_TIMEOUT": str(PATIENCE)}
    processes = []
    for rank, (host, end) in enumerate(zip(HOSTS, CABLE, strict=True)):
        own = {"NODE_RANK": str(rank), "GLOO_SOCKET_IFNAME": end, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", host, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | shared | own,
            )
        )
    return processes


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, list[str]]]:
    """Exit code and lines of stderr of each."""
    ends = []
    for process in processes:
        _, errors = process.communicate(timeout=LIMIT)
        ends.append((process.returncode, errors.splitlines()))
    return ends


def assert_finished(processes: list[subprocess.Popen[str]]) -> None:
    ends = finish(processes)
    assert [code for code, _ in ends] == [0, 0], ends


def test_a_cut_cable_stops_both_hosts_and_the_run_goes_on_when_it_is_mended(hosts: None, tmp_path: Path) -> None:
    assert_finished(start(tmp_path / "unbroken"))

    run = RunDir(tmp_path / "broken")
    broken = start(run.path)
    until = time.monotonic() + LIMIT
    while not run.checkpoint_steps() and time.monotonic() < until and broken[0].poll() is None:
        time.sleep(0.05)
    assert broken[0].poll() is None, finish(broken)
    ip("-n", HOSTS[0], "link", "set", CABLE[0], "down")
    cut = time.monotonic()
    for code, errors in finish(broken):
        assert code == 1
        assert "lost the others" in errors[-1]
        assert sum("lost the others" in line for line in errors) == 1
    assert time.monotonic() - cut < 10 * PATIENCE
    assert not run.encoder_file.exists()

    ip("-n", HOSTS[0], "link", "set", CABLE[0], "up")
    assert_finished(start(run.path, "--resume"))
    weights, expected = (load_file(RunDir(tmp_path / name).encoder_file) for name in ("broken", "unbroken"))
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert run.metrics_file.read_bytes() == RunDir(tmp_path / "unbroken").metrics_file.read_bytes()
