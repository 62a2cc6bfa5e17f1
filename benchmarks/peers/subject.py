"""One subject in a process of its own: `python subject.py NAME` with the setting as JSON on the first line of stdin.

It builds its step and takes two, answers with the seconds of the second, and then takes as many steps as each further
line says and answers with the seconds of one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import TextIO

from setting import Setting

# by name: module, function
SUBJECTS = {
    "evensphere + GH": ("ours", "with_gh"),
    "bare backbone": ("ours", "bare"),
    "lightly": ("lightly_simclr", "step"),
    "torchvision + torch": ("plain", "step"),
}


def build(name: str, setting: Setting) -> Callable[[], object]:
    module, function = SUBJECTS[name]
    step: Callable[[], object] = getattr(import_module(module), function)(setting)
    return step


def seconds_of(step: Callable[[], object], steps: int) -> float:
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - begin) / steps


def serve(name: str, commands: TextIO, answers: TextIO) -> None:
    step = build(name, Setting(**json.loads(commands.readline())))
    step()
    print(seconds_of(step, 1), file=answers, flush=True)
    for line in commands:
        print(seconds_of(step, int(line)), file=answers, flush=True)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    serve(sys.argv[1], sys.stdin, answers)
    answers.flush()
    os._exit(0)  # without a farewell to the loaders' workers, which end with their pipes
