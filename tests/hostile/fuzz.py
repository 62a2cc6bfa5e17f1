"""Bytes that nobody wrote on purpose: valid files with some of them changed, and JSON with other values in it.

`Worker.check` hands them to a process of its own, which watches over time and memory, and survives a crash of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from hypothesis import strategies as st
from tests.hostile.worker import MEMORY

ROOT = Path(__file__).parents[2]
SECONDS, TRAINING_SECONDS = 10, 120  # of computing for one input
PATIENCE = 10  # on a busy machine an input may take so many times longer by the clock


class Worker:
    """The process, started anew after each find. outcomes: how many inputs ended how, by target."""

    def __init__(self, errors: Path) -> None:
        self.errors = errors  # where the process writes what it says as it crashes
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.process: subprocess.Popen[bytes] | None = None
        self.base = 0

    def check(self, target: str, content: bytes) -> str:
        """Fails unless the input ends well: with success or an InputError, in time, within memory."""
        said = self._answer(target, content)
        self.outcomes[target, said if said in ("ok", "InputError") else "found"] += 1
        assert said in ("ok", "InputError"), f"{said}\n{target}: {_kept(target, content)}"
        return said

    def _answer(self, target: str, content: bytes) -> str:
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{target} {len(content)}\n".encode() + content)
            process.stdin.flush()
        except BrokenPipeError:
            return self._crash()
        answer = self._wait(TRAINING_SECONDS if target == "training" else SECONDS)
        if isinstance(answer, str):
            return answer
        if answer["memory"] > self.base + MEMORY:
            self.close()
            return f"it took {(answer['memory'] - self.base) / 1e9:.1f} GB"
        return str(answer["outcome"])

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "tests.hostile.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=ROOT,
                    env=environment,
                )
            ready = self._wait(300)
            assert isinstance(ready, dict), ready
            self.base = ready["memory"]
        return self.process

    def _wait(self, seconds: float) -> dict[str, Any] | str:
        """The next answer, or what went wrong."""
        assert self.process is not None
        assert self.process.stdout is not None
        process = psutil.Process(self.process.pid)
        begun, computing = time.monotonic(), sum(process.cpu_times()[:2])
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not selector.select(timeout=1):
                spent = sum(process.cpu_times()[:2]) - computing
                if spent > seconds or time.monotonic() - begun > PATIENCE * seconds:
                    self.close()
                    return f"it was still at it after {spent:.0f} s of computing"
        line = self.process.stdout.readline()
        if not line:
            return self._crash()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _crash(self) -> str:
        assert self.process is not None
        code = self.process.wait()
        self.close()
        return f"the process crashed (exit code {code})\n{self.errors.read_text(errors='replace')[-4000:]}"

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except BrokenPipeError:
                        continue
            self.process = None


def _kept(target: str, content: bytes) -> Path:
    """A find as a file, which becomes a regression test by being moved to tests/regressions/TARGET/."""
    folder = Path(os.environ.get("EVENSPHERE_FINDS", Path(tempfile.gettempdir()) / "evensphere-finds")) / target
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha256(content).hexdigest()[:12]
    file.write_bytes(content)
    return file


# --- bytes ------------------------------------------------------------------------------------------------------------

_PLACE = st.integers(0, 2**20)
_WORDS = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\1\0", b"../", b"\r\n")
_EDIT = st.one_of(
    st.tuples(st.just("set"), _PLACE, st.integers(0, 255)),
    st.tuples(st.just("flip"), _PLACE, st.integers(0, 7)),
    st.tuples(st.just("cut"), _PLACE, _PLACE),
    st.tuples(st.just("double"), _PLACE, _PLACE),
    st.tuples(st.just("word"), _PLACE, st.integers(0, len(_WORDS) - 1)),
    st.tuples(st.just("end"), _PLACE, st.just(0)),
)


def edited(content: bytes, edits: list[tuple[str, int, int]]) -> bytes:
    """The content with edits; places are taken modulo its length, so each edit fits."""
    data = bytearray(content)
    for kind, place, value in edits:
        if not data:
            break
        here = place % len(data)
        if kind == "set":
            data[here] = value
        elif kind == "flip":
            data[here] ^= 1 << value
        elif kind == "cut":
            del data[here : here + value % 64]
        elif kind == "double":
            data[here:here] = data[here : here + value % 64]
        elif kind == "word":
            data[here : here + len(_WORDS[value])] = _WORDS[value]
        else:
            del data[here:]
    return bytes(data)


def mutations(*contents: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(edited, st.sampled_from(contents), st.lists(_EDIT, max_size=6))


# --- JSON -------------------------------------------------------------------------------------------------------------

_NUMBERS = [0, -1, 1, 10**9, 10**12, -(10**12), 2**63, 10**30, 0.5, -0.0, 1e18, 1e300, 1e-300, math.nan, math.inf]
_TEXTS = ["", "auto", "none", "a\0b", "\ud800", "../../x", "os:system", "evensphere.rundir:os", "/dev/zero", "9" * 400]
_TEXTS += ["[red]x[/]", "\x1b[31m", "<script>alert(1)</script>", "=1+1"]
_OTHERS: list[Any] = [None, True, [], {}, [[]], [0.1, 0.2], [None], {"": {}}]
_ODD = st.sampled_from(_NUMBERS) | st.sampled_from(_TEXTS) | st.sampled_from(_OTHERS)
JSON_VALUES = st.recursive(
    _ODD | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, one in inner for path in places(one, (*before, key)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at a path; without the key where `new` is Ellipsis."""
    if not path:
        return {} if new is ... else new
    copied = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is ...:
        del copied[path[0]]
    else:
        copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@st.composite
def json_mutations(draw: st.DrawFn, content: Any) -> Any:
    """The JSON value with one to three values replaced or left out."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(content)))
        content = replaced(content, path, draw(JSON_VALUES | st.just(...)))
    return content


def as_bytes(content: Any) -> bytes:
    return json.dumps(content).encode("utf-8", "surrogatepass")
