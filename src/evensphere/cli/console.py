"""What the commands print, with names from anywhere in it.

Class names, file names and recipes come from whoever made the data. On a terminal they must be text: rich would take
`[red]` for markup, and the terminal itself takes control characters for orders. A `plain_console` prints every text as
it is written, its tables too; `say` does the same for the plain lines that other programs read.
"""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from evensphere.untrusted import shown


class PlainConsole(Console):
    """rich's, but texts are no markup, and what a terminal would obey is spelled (see `untrusted.shown`)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_lines_shown(text), **options)


def plain_console(stderr: bool = False, width: int | None = None) -> Console:
    """Where a command prints. width: in letters; None takes the terminal's."""
    return PlainConsole(stderr=stderr, width=width)


def say(text: str) -> None:
    """Print a text as it is, line for line."""
    typer.echo(_lines_shown(text))


def _lines_shown(text: str) -> str:
    return "\n".join(shown(line) for line in text.split("\n"))
