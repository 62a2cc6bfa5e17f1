"""The import rule: a module imports only from lower levels, or inside its own folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "evensphere"
LEVELS = [
    {"errors"},
    {"untrusted", "values", "disk"},
    {"spreadsheet"},
    {"rundir"},
    {"ops"},
    {"nn"},
    {"gh", "methods", "data", "metrics"},
    {"engine"},
    {"recipes", "report"},
    {"diagnosis", "curation", "export"},
    {"bench", "compare", "integrations", "toy"},
    {"reproduce"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(file: Path) -> str:
    """The folder or file directly below the package that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(source: str) -> set[str]:
    """Parts of evensphere that a source text imports anywhere, inside functions too."""
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{alias.name}" if node.module == "evensphere" else str(node.module)
                for alias in node.names
            ]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("evensphere.")}
    return parts - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_levels(file: Path) -> None:
    part = part_of(file)
    if part == "__init__":
        return
    for other in imported_parts(file.read_text()) - {part}:
        assert LEVEL[other] < LEVEL[part], f"{file.name} ({part}) must not import evensphere.{other}"


def test_the_rule_sees_every_kind_of_import() -> None:
    source = "import evensphere.gh.anchors\ndef f():\n    from evensphere.cli import train\nfrom evensphere import ops"
    assert imported_parts(source) == {"gh", "cli", "ops"}


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not [file for file in FILES if file.stem in ("utils", "common", "helpers", "misc")]


@pytest.mark.parametrize("command", ["import evensphere", "import evensphere.cli.main"])
def test_importing_is_light(command: str) -> None:
    check = (
        f"{command}; import sys; heavy = {{'torch', 'numpy'}} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
