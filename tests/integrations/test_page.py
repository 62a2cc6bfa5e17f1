"""docs/integrations.md: what it shows runs, and what it links to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from evensphere import Harmonizer, WithIndex

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_three_lines_run_with_an_index_and_without() -> None:
    batch = [torch.zeros(60, 8), torch.arange(60)]
    for block in BLOCKS[:2]:
        names: dict[str, Any] = {"Harmonizer": Harmonizer, "WithIndex": WithIndex, "dataset": range(60)}
        names |= {"z1": torch.randn(60, 64), "z2": torch.randn(60, 64), "batch": batch, "loss": torch.zeros(())}
        exec(block, names)
        assert names["loss"] == 0, "in the warm-up"
        assert names["harmonizer"].steps_taken == 1


def test_the_examples_it_names_are_there() -> None:
    named = re.findall(r"`(examples/\w+\.py)`", PAGE)
    assert len(named) == 9
    for file in named:
        assert (ROOT / file).is_file()
