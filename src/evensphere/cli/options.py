"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Trust = Annotated[bool, typer.Option("--trust", help="Run code of its own that the run's recipe names.")]
