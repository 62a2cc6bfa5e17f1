"""The framework's operations, counted: what a small step costs where each of them is a kernel to launch.

An operation is a call that torch dispatches to a backend, in the forward and the backward pass alike. Views of memory
(transposing, slicing, detaching) compute nothing and are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


class _Counter(TorchDispatchMode):
    """Counts what is dispatched while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def count_operations(task: Callable[[], object]) -> int:
    """Operations of one call."""
    counter = _Counter()
    with counter:
        task()
    return counter.operations


def count_flop(task: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and convolutions of one call; a multiplication and its addition
    are two."""
    with FlopCounterMode(display=False) as counter:
        task()
    return int(counter.get_total_flops())
