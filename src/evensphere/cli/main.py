"""`evensphere`: collects the commands, and turns mistakes into one sentence and exit code 2.

Typer reads each command's signature, so the command files must be importable without torch; what a command does is
imported inside its function.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from evensphere import __version__
from evensphere.cli import (
    bench,
    curate,
    data,
    evaluate,
    methods,
    quickstart,
    rare,
    recipes,
    report,
    reproduce,
    split,
    train,
)
from evensphere.errors import InputError, TrainingStopped

app = typer.Typer(
    help="Learn image representations from unlabelled, long-tailed data. Start with `evensphere quickstart`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (quickstart, train, evaluate, report, reproduce, bench, methods, recipes, split, rare, curate):
    app.command(command.NAME)(command.run)
app.add_typer(data.app, name=data.NAME)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"evensphere {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. `--debug` anywhere shows the traceback of an error instead of its sentence."""
    # OpenMP threads wait for each other by spinning, which beside one busy process costs a small network on two cores
    # 14/15 of its speed; spinning briefly and then sleeping costs 2/3, and nothing on an idle machine (docs/log.md).
    # Read when torch is loaded, which happens later, inside a command.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments)
    except (InputError, TrainingStopped, KeyboardInterrupt, OSError) as error:
        if debug:
            raise
        raise SystemExit(_explain(error)) from None


def _explain(error: BaseException) -> int:
    """Say what happened in one sentence; the exit code."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if isinstance(error, KeyboardInterrupt):
        console.print("Stopped. Add --resume to the same command to go on from the last checkpoint.")
        return 130
    console.print(str(error), markup=False)
    return 1 if isinstance(error, TrainingStopped) else 2
