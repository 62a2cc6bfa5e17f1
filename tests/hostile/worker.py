"""A process that hands bytes to a target and says what became of it; it may be killed, or crash, without harm.

One input is a line with the target's name and a length, then so many bytes, on standard input. One answer is a line
of JSON on what was standard output: {"outcome": "ok" | "InputError" | a traceback, "memory": bytes at the peak}.
Run by tests.hostile.fuzz.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import resource
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import psutil
from tests.hostile.targets import TARGETS

from evensphere.errors import InputError

MEMORY = 2 * 2**30  # bytes that an input may take, beyond what the program has when it begins


def main() -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a target prints
    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"outcome": "ready", "memory": peak()}), file=answers)
    while line := sys.stdin.buffer.readline():
        name, length = line.split()
        content = sys.stdin.buffer.read(int(length))
        print(json.dumps({"outcome": outcome(name.decode(), content), "memory": peak()}), file=answers)


def outcome(name: str, content: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            TARGETS[name](content, Path(folder))
        except InputError as error:
            return "InputError" if str(error).strip() else "an InputError that says nothing"
        except BaseException:
            return traceback.format_exc()
        finally:
            gc.collect(0)
    return "ok"


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
