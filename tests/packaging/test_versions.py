"""One version everywhere, and files that point at what is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import evensphere

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_version() -> None:
    citation = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert citation
    assert evensphere.__version__ == PROJECT["version"] == citation[1]


def test_the_extras_of_the_tests_hold_every_other_extra_or_its_packages() -> None:
    """So that nothing that can be installed goes untested."""
    extras = PROJECT["optional-dependencies"]
    named = set(re.findall(r"[\w-]+", " ".join(re.findall(r"evensphere\[(.*?)\]", " ".join(extras["test"])))))
    packages = {re.split(r"[<>=\[]", one)[0] for one in extras["test"]}
    for name, needed in extras.items():
        if name not in ("test", "docs"):
            assert name in named or {re.split(r"[<>=\[]", one)[0] for one in needed} <= packages, name


def test_the_dockerfiles_and_workflows_name_files_that_exist() -> None:
    for file in (*ROOT.glob("docker/*.Dockerfile"), *ROOT.glob(".github/workflows/*.yml")):
        for path in re.findall(r"(?:bash|-f) (\S+)", file.read_text()):
            assert (ROOT / path).exists(), f"{file.name}: {path}"
