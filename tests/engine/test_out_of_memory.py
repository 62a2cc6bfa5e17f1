"""A batch that does not fit: what the user is told, and that it is true."""

from __future__ import annotations

import weakref
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from tests.engine.test_watchdog import state_of, trained, training_of
from torch import Tensor, nn

from evensphere.engine.out_of_memory import advice, is_out_of_memory, let_go, parts_that_fit, untried_advice
from evensphere.engine.preflight import preflight
from evensphere.engine.train import Training
from evensphere.errors import InputError


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


def test_nothing_is_advised_that_would_be_refused() -> None:
    assert "--set micro_batches=4 or more, or free" in untried_advice(512, 2, 7, compiled=False, in_parts=True)
    assert "--set compile=false and --set micro_batches=2" in untried_advice(512, 1, None, compiled=True, in_parts=True)
    assert "micro_batches" not in untried_advice(512, 1, None, compiled=False, in_parts=False)


def too_large_from(training: Training, most: int, step: int = 0) -> None:
    """A network that has no memory for more than so many images at once, from some step on."""
    conv = next(module for module in training.method.encoder.modules() if isinstance(module, nn.Conv2d))
    forward, calls = conv.forward, []

    def limited(input: Tensor) -> Tensor:
        calls.append(len(input))
        if len(input) > most and len(calls) > 2 * step:
            torch.empty(2**60, dtype=torch.uint8)  # torch's own refusal
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
