"""Pages of documentation as tests read them: blocks of code, inline code, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# a diary, and a page that is made of results: their commands were true on their day
UNCHECKED = {DOCS / "log.md", DOCS / "results.md"}

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SHELL = ("", "bash", "sh")


class Call(NamedTuple):
    """A simple command of a shell block: environment=values in front, then words as a shell would split them."""

    text: str
    words: tuple[str, ...]
    environment: dict[str, str]

    @property
    def ours(self) -> tuple[str, ...] | None:
        """What `evensphere` is given, by itself or by a launcher; None for a command that is another program's."""
        for i, word in enumerate(self.words):
            if word == "$(which evensphere)" or (word == "evensphere" and (i == 0 or self.words[0] == "srun")):
                return self.words[i + 1 :]
        return None


@dataclass(frozen=True)
class Page:
    """A Markdown file. path: of the file, from which links go."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else self.path.name

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """(language, text) of each fenced block."""
        return _FENCE.findall(self.text)

    @cached_property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    @property
    def calls(self) -> list[Call]:
        """The commands of all shell blocks, in order."""
        return [call for language, text in self.blocks if language in _SHELL for call in calls_of(text)]

    @property
    def python(self) -> list[str]:
        return [text for language, text in self.blocks if language == "python"]

    @property
    def inline(self) -> list[str]:
        """What stands between single backticks, lines joined."""
        return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of links and pictures, those of inline code left out."""
        return _LINK.findall(re.sub(r"`[^`]+`", "", self.prose))

    @property
    def anchors(self) -> set[str]:
        """What a link may name after '#': headings, as the site and code hosts spell them."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def read_page(path: Path) -> Page:
    return Page(path, path.read_text(encoding="utf-8"))


def pages() -> list[Page]:
    """README and everything in docs but what is UNCHECKED."""
    files = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return [read_page(file) for file in files if file not in UNCHECKED]


def calls_of(block: str) -> list[Call]:
    """The commands of a shell block: comments left out, lines that go on joined, `a && b` and `a | b` taken apart."""
    calls = []
    for line in block.replace("\\\n", " ").splitlines():
        if not line.startswith(("    ", "\t")):  # what a command prints is shown indented
            for part in re.split(r"\s+(?:&&|\|)\s+", line):
                calls += _call(part)
    return calls


def _call(text: str) -> list[Call]:
    try:
        words = shlex.split(text.replace("$(which evensphere)", "'$(which evensphere)'"), comments=True)
    except ValueError:
        return []  # no command, such as a tree of files
    environment = {}
    while words and (assigned := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        environment[assigned[1]] = assigned[2]
        words = words[1:]
    return [Call(text.split("  #")[0].strip(), tuple(words), environment)] if words else []
