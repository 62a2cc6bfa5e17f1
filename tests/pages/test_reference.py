"""docs/reference says what the code says now."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest
from tests.pages.commands import COMMANDS, command_names
from tests.pages.reading import DOCS

from evensphere.data import SOURCES
from evensphere.methods import METHODS
from evensphere.metrics import METRICS
from evensphere.recipes import RECIPES


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["commands.md", "settings.md", "api.md"])
def test_the_pages_are_fresh(generate: ModuleType, name: str) -> None:
    made = generate.reference()[name]
    assert (DOCS / "reference" / name).read_text() == made, "make it anew: python docs/generate.py"


def test_every_command_has_all_its_options(generate: ModuleType) -> None:
    """Against click's own list of them."""
    sections = dict(text.split("\n", 1) for text in generate.commands_page().split("\n## evensphere ")[1:])
    assert sorted(sections) == sorted(command_names())
    for name, text in sections.items():
        command = COMMANDS[name.split()[0]]
        for below in name.split()[1:]:
            command = command.commands[below]
        for parameter in command.params:
            spelled = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or "SOURCE"
            if parameter.secondary_opts:
                spelled = f"{spelled} / {parameter.secondary_opts[0]}"
            assert f"`{spelled}`" in text.replace("\\|", "|") or f"`{parameter.name.upper()}`" in text


def test_every_name_is_there(generate: ModuleType) -> None:
    page = generate.settings_page()
    assert [name for name in (*SOURCES, *METHODS, *METRICS, *RECIPES) if f"| `{name}` |" not in page] == []
