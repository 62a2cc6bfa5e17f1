"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Moved = Annotated[
    list[str] | None,
    typer.Option("--data", help="Where the run's images lie now, if they have moved (repeat for several folders)."),
]
Trust = Annotated[bool, typer.Option("--trust", help="Run code of its own that the run's recipe names.")]
