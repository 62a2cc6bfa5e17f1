"""`evensphere watch RUN...`: the report of runs that still go on, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say

NAME = "watch"


def run(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="One or several run folders, side by side.")],
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes any that is free.")] = 8080,
    every: Annotated[float, typer.Option(help="Seconds between two looks at the runs.")] = 10.0,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Show the report while training goes on: a page that loads itself anew, on this machine only."""
    from evensphere.errors import InputError
    from evensphere.report.live import LivePage, ReportServer

    if not every > 0:
        raise InputError(f"--every {every:g} was given; give a number of seconds above 0.")
    with ReportServer(LivePage(runs, every), port) as server:
        say(f"Watching {', '.join(map(str, runs))}: {server.address}\nCtrl-C ends it; training is not touched.")
        if browser:
            import webbrowser

            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("")
