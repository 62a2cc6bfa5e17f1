"""The table `supervised`: whole encoders fine-tuned on the long-tailed labels of the images they were pretrained on.

`evensphere finetune` trains each in five ways of dealing with the tail and writes the scores into eval.json. The same
network from its first weights does not depend on the arm; it is trained once a seed, beside the control.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evensphere.engine.finetune import METHODS
from evensphere.report.record import METRICS
from evensphere.report.wording import capital
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph
from evensphere.reproduce.results import COLUMNS, Score, collect
from evensphere.reproduce.rows import PAIRED, Column, arm_rows, difference_rows, seeds_of

_SCRATCH = "scratch"


def supervised_scores(cells: Sequence[Cell], folder: Path) -> list[Score]:
    """Every number under the name of the way it was trained; of the network from scratch as an arm of its own."""
    scores = []
    for score in collect(cells, folder, "test"):
        start, _, method = score.metric.partition("_")
        if start == "finetune":
            scores.append(score._replace(metric=method, seconds=None))
        elif start == "scratch" and score.arm == "two-stage":
            scores.append(score._replace(arm=_SCRATCH, metric=method, seconds=None))
    return scores


def supervised_page(command: str, scores: Sequence[Score]) -> list[Block]:
    table = get_table("supervised")
    titles = {_SCRATCH: "from scratch"} | {arm: f"from {ARMS[arm].title}" for arm in table.arms}
    contrasts = [*table.contrasts, *((arm, _SCRATCH) for arm in table.arms)]
    blocks: list[Block] = [
        Heading(1, command),
        Paragraph(
            f"{seeds_of(scores)} Encoder and head trained together on the long-tailed labels of the images of "
            "pretraining, in five ways (see `evensphere finetune`); learning rates and the heads' own settings are "
            "those that are best on validation images. Accuracy in % on test images; std is that of the three group "
            f"means (ddof 0). {PAIRED}"
        ),
    ]
    for method in METHODS:
        columns: dict[str, Column] = {column: (method, column) for column in COLUMNS}
        blocks += [
            Heading(2, capital(METRICS[f"finetune_{method}"].partition(", ")[2])),
            arm_rows(scores, titles, columns),
            difference_rows(scores, contrasts, titles, columns, unit="points"),
        ]
    return blocks
