"""Whether a command that a page shows would be accepted: parsed by the real command line, settings by real recipes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Any

import typer.main
from tests.pages.reading import Page

from evensphere.cli.main import app
from evensphere.data.kinds import OWN
from evensphere.errors import InputError
from evensphere.metrics import METRICS
from evensphere.recipes import ARMS, RECIPES
from evensphere.recipes.part import KINDS, Part, check, options_of
from evensphere.recipes.recipe import Recipe, get_recipe, without_auto
from evensphere.reproduce import SCALES, TABLES

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FIELDS = {field.name for field in fields(Recipe)} - {"name", "summary", "resolved", "teachers"}

# parts from outside the package that pages speak of
EXAMPLES = {"method": ["own_method:AlignmentUniformity"], "data": ["own_data:arrays"]}

# words that stand for something, and what may stand there
STANDS_FOR = {"RECIPE": "folder", "TABLE": "pilot", "SCALE": "small", "ARM": "gh"}
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_.|]*")

# what options and arguments are checked by once they are parsed
_NAMES: dict[str, Collection[str]] = {
    "recipe": RECIPES,
    "arm": ARMS,
    "table": TABLES,
    "scale": SCALES,
    "metric": METRICS,
}


def problems_of(page: Page) -> list[str]:
    """Every command, option and setting of a page that would not be accepted, with the reason."""
    found = []
    for call in page.calls:
        if call.ours is not None:
            found += [f"{call.text}: {problem}" for problem in command_problems(call.ours)]
    for code in page.inline:
        found += [f"`{code}`: {problem}" for problem in inline_problems(code)]
    return found


def command_problems(arguments: Sequence[str], whole: bool = True) -> list[str]:
    """What `evensphere ARGUMENTS` would be refused for before it does anything. whole: nothing may be left out."""
    words = [_stand_in(word) for word in arguments]
    name: str = "evensphere"
    group: dict[str, Any] = COMMANDS
    while words and words[0] in group:
        command = group[words[0]]
        name, group, words = f"{name} {words[0]}", getattr(command, "commands", {}), words[1:]
    if name == "evensphere":
        named = words and not words[0].startswith("-")
        return [f"there is no command {words[0]!r}"] if named else []
    if group and words and not words[0].startswith("-"):
        return [f"{name} has no command {words[0]!r}"]
    try:
        given = command.make_context(name, list(words)).params
    except Exception as error:
        if not hasattr(error, "format_message"):  # which only the command line's own have
            raise
        left_out = type(error).__name__ == "MissingParameter" and not whole
        return [] if left_out else [error.format_message()]
    return [*_unknown_names(name, given), *_setting_problems(name, given)]


def _stand_in(word: str) -> str:
    return STANDS_FOR.get(word, "1" if re.fullmatch(r"[A-Z]+", word) else word)


def _unknown_names(command: str, given: dict[str, Any]) -> list[str]:
    problems = []
    for option, known in _NAMES.items():
        value: Any = given.get(option)
        for one in value if isinstance(value, list | tuple) else [value]:
            ours = option != "metric" or command == "evensphere evaluate"
            if one is not None and ours and one not in (*known, "1"):
                problems.append(f"there is no {option} {one!r}")
    return problems


def _setting_problems(command: str, given: dict[str, Any]) -> list[str]:
    """Settings are those of a recipe, or, where images are looked at or divided, options of their source."""
    settings = list(given.get("setting") or ())
    if command in ("evensphere data inspect", "evensphere split"):
        return [problem for one in settings if (problem := setting_problem(f"data.{one}"))]
    known = [one for one in settings if not _is_abstract(one)]
    problems = [problem for one in settings if _is_abstract(one) and (problem := setting_problem(one))]
    recipe = given.get("recipe") or "digits-lt"
    if recipe not in RECIPES:
        return problems
    if get_recipe(recipe).data.name in OWN:
        # which kind of collection the data is shows only when it is there
        problems += [problem for one in known if one.startswith("data.") and (problem := setting_problem(one))]
        known = [one for one in known if not one.startswith("data.")]
    try:
        get_recipe(recipe, given.get("arm") or "gh").set(known)
    except InputError as error:
        problems.append(str(error))
    return problems


def _is_abstract(setting: str) -> bool:
    """Whether a value, an option or all of it is a word that stands for something: epochs=N."""
    name, _, value = setting.partition("=")
    return bool(re.fullmatch(r"[A-Z]+|[a-z]+\.[A-Z]+", name) or _PLACEHOLDER.fullmatch(value))


def setting_problem(setting: str) -> str | None:
    """Why no run of any kind could take a setting such as 'method.temperature=0.1'; None if one could."""
    name, _, value = setting.partition("=")
    if re.fullmatch(r"[A-Z]+(\.[A-Z]+)?", name):
        return None
    kind, dot, option = name.partition(".")
    if kind not in FIELDS or (dot and kind not in KINDS):
        return f"there is no setting {name!r}"
    if not dot:
        return None if _PLACEHOLDER.fullmatch(value) else _refusal([setting])
    if re.fullmatch(r"[A-Z]+", option):
        return None
    parts = [*KINDS[kind][0], *EXAMPLES.get(kind, ())]
    refusals = [_part_refusal(kind, part, option, setting) for part in parts]
    return None if None in refusals else f"no {kind} takes {setting}: {refusals[0]}"


def _part_refusal(kind: str, part: str, option: str, setting: str) -> str | None:
    value = setting.partition("=")[2]
    if not value or _PLACEHOLDER.fullmatch(value):
        return None if option in options_of(kind, part) else f"{part} has no option {option}"
    try:
        set_on_folder = get_recipe("folder").set([f"{kind}={part}", setting])
        check(kind, without_auto(getattr(set_on_folder, kind) or Part(part)))
    except InputError as error:
        return str(error)
    return None


def _refusal(settings: list[str]) -> str | None:
    try:
        get_recipe("folder").set(settings)
    except InputError as error:
        return str(error)
    return None


def inline_problems(code: str) -> list[str]:
    """The same of code in the middle of a sentence: a command, perhaps without its arguments, an option, a setting."""
    try:
        words = shlex.split(re.sub(r"\[[^\]]*\]", "", code))  # what is in brackets may be left out
    except ValueError:
        return []
    if words[:1] == ["evensphere"]:
        return command_problems(words[1:], whole=False)
    if words[:1] == ["--set"]:
        settings = [word for word in words if word != "--set"]
        return [problem for one in settings if (problem := setting_problem(one))]
    if words and words[0].startswith("--"):
        return _option_problems(words)
    head = code.partition("=")[0].partition(".")[0]
    if re.fullmatch(r"[a-z_.]+=[^\s=]+", code) and (head in KINDS or head in FIELDS):
        problem = setting_problem(code)
        return [] if problem is None else [problem]
    return []


def _option_problems(words: list[str]) -> list[str]:
    """An option by itself must be one of some command's, with a value that it takes."""
    if words[0] in ("--debug", "--version", "--help") or (len(words) == 1 and words[0] in _all_options()):
        return []
    tried = {name: command_problems([*name.split(), *words], whole=False) for name in command_names()}
    return [] if [] in tried.values() else [f"no command takes {' '.join(words)}"]


def _all_options() -> set[str]:
    listed = [_command(name).params for name in command_names()]
    return {spelled for parameters in listed for parameter in parameters for spelled in parameter.opts}


def _command(name: str) -> Any:
    first, *below = name.split()
    return COMMANDS[first].commands[below[0]] if below else COMMANDS[first]


def command_names() -> list[str]:
    below = {name: getattr(command, "commands", {}) for name, command in COMMANDS.items()}
    return [*below, *(f"{name} {one}" for name, more in below.items() for one in more)]
