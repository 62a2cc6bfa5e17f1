"""The one exception that speaks to the user."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one sentence: what was given, what is allowed, what to do. The command line prints it without a
    traceback and exits with code 2; a library user can catch it as the `ValueError` it is.
    """


class TrainingStopped(RuntimeError):
    """Training cannot go on (the loss is no longer finite, say); the message says where, why, and what to do."""


class TrainingInterrupted(SystemExit):
    """Training was asked to stop and did, after a checkpoint. Uncaught it ends the program with its exit code.

    sentence: where it stopped, and how to go on.
    """

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(code)
        self.sentence = sentence


def unknown_name(kind: str, given: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a list: "unknown method 'simlcr'; did you mean 'simclr'?"."""
    known = sorted(known)
    close = get_close_matches(given, known, n=1, cutoff=0.6)
    hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}."
    return InputError(f"Unknown {kind} '{given}'; {hint}")
