"""The wheel holds the whole product: it runs from an empty folder, away from the sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked where nothing else is."""
    dist, site = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT), cwd=dist)
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.mark.slow
def test_it_holds_every_file_of_the_package(installed: Path) -> None:
    sources = ROOT / "src" / "evensphere"
    expected = {file.relative_to(sources) for file in files_below(sources)}
    assert {file.relative_to(installed / "evensphere") for file in files_below(installed / "evensphere")} == expected


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]


@pytest.mark.slow
def test_the_quickstart_runs_from_it_and_learns(installed: Path, tmp_path: Path) -> None:
    """One seed of the real quickstart: both arms end well above the untrained encoder."""
    start = "import evensphere; print(evensphere.__file__); from evensphere.cli.main import main; main()"
    printed = run(sys.executable, "-c", start, "quickstart", "--seeds", "1", cwd=tmp_path, PYTHONPATH=str(installed))
    assert printed.startswith(str(installed)), "the wheel is what runs"
    averages = {
        cells[1].strip(): float(cells[-2].split()[0])
        for line in printed.splitlines()
        if "│" in line and ("SimCLR" in line or "untrained" in line) and (cells := line.split("│"))
    }
    untrained = averages.pop("kNN, untrained encoder")
    assert all(average > untrained + 5 for average in averages.values()), printed
    assert (tmp_path / "runs" / "quickstart" / "report.html").stat().st_size > 1_000_000
