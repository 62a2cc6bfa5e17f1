"""docs/reliability.md names the test that proves each promise: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
PROMISES = [line for line in PAGE.splitlines() if re.match(r"\| (?!promise \|)[^-]", line)]


def marks_of(file: str) -> dict[str, str]:
    """Every test of a file, and its decorators as they are written."""
    functions = (node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef))
    return {function.name: " ".join(map(ast.unparse, function.decorator_list)) for function in functions}


@pytest.mark.parametrize(("file", "test"), sorted(set(NAMED)))
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in marks_of(file)


def test_every_promise_names_a_test() -> None:
    assert len(PROMISES) > 20
    assert [line for line in PROMISES if not re.search(r"`tests/[\w/]+\.py::test_\w+`", line)] == []


@pytest.mark.parametrize("promise", PROMISES)
def test_a_test_that_does_not_run_by_default_is_said_to_be_slow_or_soak(promise: str) -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise):
        for mark in ("slow", "soak"):
            assert (f"mark.{mark}" in marks_of(file)[test]) <= (mark in promise), test
