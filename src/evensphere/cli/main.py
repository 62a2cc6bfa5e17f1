"""`evensphere`: collects the commands, and turns mistakes into one sentence and exit code 2.

Typer reads each command's signature, so the command files must be importable without torch; what a command does is
imported inside its function.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from evensphere import __version__
from evensphere.cli import (
    bench,
    compare,
    curate,
    data,
    diagnose,
    embed,
    evaluate,
    export,
    finetune,
    methods,
    quickstart,
    rare,
    recipes,
    report,
    reproduce,
    split,
    toy,
    train,
    watch,
)
from evensphere.cli.console import plain_console
from evensphere.engine.stop import requeue_between_runs
from evensphere.errors import InputError, TrainingInterrupted, TrainingStopped

app = typer.Typer(
    help="Learn image representations from unlabelled, long-tailed data. Start with `evensphere quickstart`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    *(quickstart, train, evaluate, finetune, compare, diagnose, rare, curate, export, embed),
    *(report, watch, reproduce, bench, methods, recipes, split, toy),
)
for command in COMMANDS:
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
    debug: Annotated[
        bool, typer.Option("--debug", help="Anywhere on the line: show the traceback of an error, not its sentence.")
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
    # what its C++ parts say about lost connections, a page each, is said in a sentence below
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    requeue_between_runs()
    try:
        app(arguments)
    except TrainingInterrupted as stop:
        _say(stop.sentence)
        raise SystemExit(stop.code) from None
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            _say("Stopped. The same command goes on where that can be (`train` with --resume).")
        raise
    except (InputError, TrainingStopped, OSError) as error:
        if debug:
            raise
        _say(str(error))
        raise SystemExit(1 if isinstance(error, TrainingStopped) else 2) from None


def _say(sentence: str) -> None:
    """Print a sentence; several processes on a machine say it once."""
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")) == "0":
        plain_console(stderr=True).print(" ".join(line.strip() for line in sentence.splitlines()), soft_wrap=True)
