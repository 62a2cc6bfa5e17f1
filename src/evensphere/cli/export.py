"""`evensphere export RUN --to TARGET`: the encoder for another program, read again and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evensphere.cli.console import say
from evensphere.cli.options import Trust
from evensphere.export.targets import TARGETS
from evensphere.rundir import Which

NAME = "export"


def run(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    to: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}; see docs/export.md.")],
    out: Annotated[Path, typer.Option(help="File to write, whose suffix says the format; a folder for huggingface.")],
    encoder: Annotated[Which, typer.Option(help="last; or best on validation images while training.")] = "last",
    trust: Trust = False,
) -> None:
    """Write the encoder for timm, torchvision, ONNX, Hugging Face, detectors ...; read it again and compare."""
    from evensphere.export.export import export_encoder

    exported = export_encoder(folder, to, out, encoder, trust)
    say(str(exported))
    say(f"Written: {', '.join(map(str, exported.files))}")
    say("To use it:\n" + "\n".join(f"    {line}" for line in exported.code.splitlines()))
