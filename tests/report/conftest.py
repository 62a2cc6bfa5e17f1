"""Six runs: two arms of three seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.fake_runs import FEW, make_run, results


@pytest.fixture
def six(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / f"{arm}-{seed}", arm, seed, results(few)) for (arm, seed), few in FEW.items()]
