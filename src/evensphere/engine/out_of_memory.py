"""A batch that does not fit in memory: in how many parts it would, found out by trying."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable

import torch

_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad allocation")  # of torch's CPU allocator


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, on a GPU or beside it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def let_go(error: BaseException) -> None:
    """Free what the functions that an error came through still hold."""
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parts_that_fit(attempt: Callable[[int], None], batch_size: int, parts: int) -> int | None:
    """In how many parts a batch fits that does not in `parts`: twice as many, four times ...; None if in no number.

    attempt: takes what a step needs with so many parts, or fails.
    """
    while batch_size // (parts := 2 * parts) >= 2:
        try:
            attempt(parts)
            return parts
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            let_go(error)
    return None


def advice(batch_size: int, parts: int, fitting: int | None, checkpoint: int | None) -> str:
    """What to tell the user. parts: that it came in. fitting: of `parts_that_fit`. checkpoint: the newest's step."""
    if fitting is None:
        todo = "nor does it in more micro-batches; begin a new run with a smaller batch_size, backbone or views"
    else:
        todo = (
            f"in {fitting} micro-batches it does (tried): begin a new run with --set micro_batches={fitting}, whose "
            f"loss still sees the whole batch, or with --set batch_size={batch_size // fitting}"
        )
    return _sentence(batch_size, parts, todo, checkpoint)


def untried_advice(batch_size: int, parts: int, checkpoint: int | None, compiled: bool, in_parts: bool) -> str:
    """The same where nothing could be tried. compiled: the network is, which excludes parts. in_parts: whether they are
    allowed otherwise."""
    todo = "begin a new run with a smaller batch_size"
    if in_parts:
        without = "compile=false and --set " if compiled else ""
        todo += f", or with --set {without}micro_batches={2 * parts} or more"
    else:
        todo += ", or with more processes, each on a device of its own"
    return _sentence(batch_size, parts, todo, checkpoint)


def _sentence(batch_size: int, parts: int, todo: str, checkpoint: int | None) -> str:
    came = f"A batch of {batch_size} images" + (f" in {parts} micro-batches" if parts > 1 else "")
    kept = "" if checkpoint is None else f", or free memory and --resume from the checkpoint of step {checkpoint}"
    return f"{came} does not fit in memory; {todo}{kept}."
