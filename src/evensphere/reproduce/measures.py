"""What some tables ask of a finished run beyond its scores: made once, kept in the run's folder.

    uniformity    eval.json: "geometry" and "clusters" of the test images
    transfer      transfer-TARGET.json for each set of other labelled images
    supervised    eval.json: "finetune_METHOD"; "scratch_METHOD" in the runs of the control
    population    surrogates.json

A cell that another table trained and scored only lacks the measure. Pages are made of these files alone, so what is
kept of a run needs no weights. What no arm has a part in, such as a network from scratch, is the same in all cells of a
seed, and measured in the control's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from evensphere.engine.finetune import METHODS, Tuning
from evensphere.errors import InputError, unknown_name
from evensphere.recipes.finetuning import finetune_run
from evensphere.recipes.scoring import evaluate
from evensphere.reproduce.surrogates import look_back, own_harmonizer
from evensphere.reproduce.transfer import Target, measure_transfer
from evensphere.rundir import RunDir

MEASURED = ("uniformity", "transfer", "supervised", "population")
CONTROL = "two-stage"  # the recipe's arm in whose runs that is measured which no arm has a part in

_GEOMETRY = ("geometry", "clusters")
_EPOCHS = {"tiny": 2}  # of supervised fine-tuning; elsewhere they are Tuning's own


def is_measured(run: RunDir, table: str, targets: Sequence[str] = ()) -> bool:
    """Whether all that a table asks for is in the run's folder. targets: names; without any, one is enough."""
    match table:
        case "uniformity":
            return set(_GEOMETRY) <= run.read_results("test").keys()
        case "transfer":
            there = run.transfer_files().keys()
            return set(targets) <= there if targets else bool(there)
        case "supervised":
            return f"finetune_{METHODS[0]}" in run.read_results("test")
        case "population":
            return run.surrogates_file.exists()
    raise unknown_name("table of measures", table, MEASURED)


def measure(
    run: Path | str,
    table: str,
    targets: Sequence[Target] = (),
    scale: str = "small",
    console: Console | None = None,
) -> None:
    """Add to a finished run what a table asks for and is not there yet.

    run: the folder, with its weights (population: with its kept checkpoints). table: one of MEASURED. targets: what
    `transfer` scores the encoder on. scale: how long `supervised` trains.
    Raises InputError for another table, and for a run without weights.
    """
    console = console or Console(quiet=True)
    folder = RunDir.existing(run)
    if is_measured(folder, table, [target.name for target in targets]):
        return
    if not folder.encoder_file.exists():
        raise InputError(f"{folder.path} has no weights to measure; give the folder that it was trained in.")
    is_control = folder.read_recipe()["arm"] == CONTROL
    match table:
        case "uniformity":
            evaluate(folder.path, metrics=_GEOMETRY, console=console)
        case "transfer":
            for target in targets:
                if not folder.transfer_file(target.name).exists():
                    measure_transfer(folder, target, with_untrained=is_control)
        case "supervised":
            tuning = Tuning(_EPOCHS.get(scale, Tuning.epochs), seed=folder.read_recipe()["seed"])
            finetune_run(folder.path, tuning=tuning, console=console, scratch=is_control)
        case "population":
            folder.write_json(folder.surrogates_file, {"checkpoints": look_back(folder, own_harmonizer(folder))})
