"""A batch that does not fit: what the user is told, and that it is true."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tests.engine.test_watchdog import state_of, trained, training_of
from torch import Tensor, nn

from evensphere.engine.out_of_memory import advice, is_out_of_memory, let_go, parts_that_fit
from evensphere.engine.preflight import preflight
from evensphere.engine.train import Training
from evensphere.errors import InputError
from evensphere.rundir import RunDir


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_say_so(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_torch_says_so_in_words_that_are_known() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(("most", "expected"), [(100, 2), (5, 4), (1, None)])
def test_parts_are_halved_until_they_fit(most: int, expected: int | None) -> None:
    def attempt(parts: int) -> None:
        if 16 // parts > most:
            raise MemoryError

    assert parts_that_fit(attempt, 16, 1) == expected


def test_other_errors_are_not_hidden() -> None:
    def attempt(parts: int) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        parts_that_fit(attempt, 64, 1)


def test_what_failed_is_let_go() -> None:
    held: list[weakref.ref[Tensor]] = []

    def fails() -> None:
        large = torch.zeros(10)
        held.append(weakref.ref(large))
        raise MemoryError

    try:
        fails()
    except MemoryError as error:
        assert held[0]() is not None
        let_go(error)
        assert held[0]() is None


def test_the_sentence() -> None:
    sentence = advice(512, 4, 8, 7)
    assert "--set micro_batches=8, whose loss still sees the whole batch, or with --set batch_size=64" in sentence
    assert "--resume from the checkpoint of step 7" in sentence
    assert "smaller batch_size, backbone or views" in advice(512, 1, None, None)


def too_large_from(training: Training, most: int, step: int = 0) -> None:
    """A network that has no memory for more than so many images at once, from some step on."""
    conv = next(module for module in training.method.encoder.modules() if isinstance(module, nn.Conv2d))
    forward, calls = conv.forward, []

    def limited(input: Tensor) -> Tensor:
        calls.append(len(input))
        if len(input) > most and len(calls) > 2 * step:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(input)

    conv.forward = limited  # type: ignore[method-assign]


def test_the_run_ends_with_a_number_that_fits(tmp_path: Path) -> None:
    training = training_of()
    too_large_from(training, 3)
    with pytest.raises(InputError, match=r"batch of 8 images does not fit .* micro_batches=4.* batch_size=2\.$"):
        trained(training, tmp_path / "run")
    again = training_of()
    too_large_from(again, 3)
    again.micro_batches = 4
    trained(again, tmp_path / "again")


def test_the_checkpoint_is_intact(tmp_path: Path) -> None:
    training, other = training_of(), training_of()
    too_large_from(training, 3, step=7)
    with pytest.raises(InputError, match="--resume from the checkpoint of step 5"):
        trained(training, tmp_path / "run")
    again = training_of()
    trained(again, tmp_path / "run")
    trained(other, tmp_path / "other")
    assert {k: v.sum() if isinstance(v, Tensor) else v for k, v in state_of(again).items()} == {
        k: v.sum() if isinstance(v, Tensor) else v for k, v in state_of(other).items()
    }


def test_a_probe_that_does_not_fit_says_nothing() -> None:
    training = training_of()
    too_large_from(training, 3)
    assert preflight(training, Fabric(accelerator="cpu", devices=1)) is None
    training.micro_batches = 4  # whose parts do
    assert preflight(training, Fabric(accelerator="cpu", devices=1)) is not None


SCRIPT = """
import resource, sys
import torch
torch.set_num_threads(1)
import evensphere.recipes.run, evensphere.engine.train, evensphere.data.digits, sklearn.datasets
from evensphere.cli.main import main
sys.argv = ["evensphere", "train", "digits-lt", "--out", sys.argv[1], "--set", "batch_size=512", "--set", "epochs=1",
            "--set", "backbone.width=32", "--set", "views.size=32", "--set", "precision=32-true", *sys.argv[2:]]
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + 600 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="where the system keeps a process within its memory")
def test_on_a_machine_with_too_little_memory(tmp_path: Path) -> None:
    """The real thing: a limit that the system enforces, the command, its exit code, and its advice taken."""

    def train(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    failed = train(str(tmp_path / "run"))
    assert failed.returncode == 2, failed.stderr
    assert "does not fit in memory; in" in failed.stderr
    assert "Traceback" not in failed.stderr
    setting = failed.stderr.partition("--set ")[2].partition(",")[0]
    assert setting.startswith("micro_batches=")
    done = train(str(tmp_path / "again"), "--set", setting)
    assert done.returncode == 0, done.stderr
    assert RunDir(tmp_path / "again").encoder_file.exists()
