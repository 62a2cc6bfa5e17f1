"""The command line: what it says, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from evensphere.cli.main import main
from evensphere.data import SOURCES
from evensphere.methods import METHOD_INFO, METHODS
from evensphere.recipes import ARMS, RECIPES, STAGES


def evensphere(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it."""
    command = [sys.executable, "-c", "from evensphere.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The command inside this process; the exit code."""
    monkeypatch.setattr(sys, "argv", ["evensphere", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_help_is_light_and_names_every_command() -> None:
    check = "import sys; from evensphere.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    check += "print('HEAVY' if {'torch', 'numpy'} & set(sys.modules) else 'light')"
    done = subprocess.run([sys.executable, "-c", check, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("light\n")
    for command in ("quickstart", "train", "evaluate", "report", "reproduce", "bench", "methods", "recipes", "data"):
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize(
    ("command", "names"), [("methods", {**METHODS, **STAGES}), ("recipes", {**RECIPES, **ARMS}), ("data", SOURCES)]
)
def test_lists_name_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, names: dict[str, object]
) -> None:
    assert run(monkeypatch, command) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_methods_are_a_table_with_all_there_is_to_know(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "methods") == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    rows: list[list[str]] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if cells[0]:
            rows.append(cells)
        else:  # what did not fit into the line above
            rows[-1] = [f"{above} {cell}".strip() for above, cell in zip(rows[-1], cells, strict=True)]
    for row, (name, info) in zip(rows, METHOD_INFO.items(), strict=True):
        assert row == [name, info.paper, info.needs, f"{info.cost:.1f}", "yes" if info.streams else "no"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "digits"], "did you mean 'digits-lt'"),
        (["train", "digits-lt", "--arm", "ghh"], "did you mean 'gh'"),
        (["train", "digits-lt", "--set", "epoch=3"], "did you mean 'epochs'"),
        (["train", "digits-lt", "--set", "harmonizer.anchors=1", "--out", "OUT"], "at least 2"),
        (["train", "digits-lt", "--set", "data.imbalance=0", "--out", "OUT"], "imbalance"),
        (["train", "folder", "--data", "/nowhere", "--out", "OUT"], "no folder /nowhere"),
        (["train", "folder", "--out", "OUT"], "--data"),
        (["train", "digits-lt", "--devices", "0", "--out", "OUT"], "give 1 or more"),
        (["train", "digits-lt", "--out", "/proc/run", "--set", "epochs=1"], "choose another --out"),
        (["evaluate", "/nowhere"], "not a run folder"),
        (["report", "/nowhere"], "run"),
        (["reproduce", "pilots"], "did you mean 'pilot'"),
        (["bench", "--recipe", "digits"], "did you mean 'digits-lt'"),
        (["bench", "--recipe", "folder"], "give --data PATH"),
        (["bench", "--set", "harmonizer=none"], "leave other harmonizers out"),
        (["bench", "--set", "harmonizer.population=streaming"], "leave harmonizer.population out"),
        (["bench", "--set", "harmonizer.warm_up=1.0", "--recipe", "digits-lt"], "the run ends after"),
        (["bench", "--set", "stages=dnc"], "in one piece"),
        (["bench", "--rounds", "0"], "at least 1 round"),
        (["bench", "--batch", "1"], "batch_size = 1"),
        (["bench", "--out", "/nowhere/bench.jsonl"], "choose another --out"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    out = tmp_path / "out"
    assert run(monkeypatch, *[str(out) if argument == "OUT" else argument for argument in arguments]) == 2
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.strip().splitlines()) == 1
    assert not out.exists()


def test_debug_shows_the_traceback() -> None:
    done = evensphere("train", "nope", "--debug")
    assert "Traceback" in done.stderr
    done = evensphere("train", "nope")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_training_starts_without_what_it_has_no_use_for_yet() -> None:
    """Each of these takes a second or more to import; torchmetrics is somebody else's, and imports half of them."""
    unused = ["timm", "torchvision", "sklearn", "scipy", "pandas", "matplotlib", "plotly", "transformers"]
    lines = [
        "import sys; sys.modules['torchmetrics'] = None",
        "import evensphere.recipes.run",
        f"print([name for name in {unused} if name in sys.modules])",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_train_evaluate_and_report_work_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = ["--set", "epochs=2", "--set", "backbone.width=4"]
    assert run(monkeypatch, "train", "digits-lt", "--out", str(out), *settings) == 0
    assert f"evensphere evaluate {out}" in capsys.readouterr().out, "the next command is named"
    assert run(monkeypatch, "evaluate", str(out)) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("many", "medium", "few", "linear probe", "untrained", "test images", "160"))
    assert run(monkeypatch, "report", str(out)) == 0
    assert (out / "report.html").stat().st_size > 10_000


def test_quickstart_compares_both_arms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "quickstart"
    settings = ["--seeds", "2", "--set", "epochs=2", "--set", "backbone.width=4", "--out", str(out)]
    assert run(monkeypatch, "quickstart", *settings) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("linear probe, SimCLR", "SimCLR + GH", "test images", "±", "evensphere train folder --data PATH"):
        assert words in printed
    assert (out / "report.html").exists()
    assert (out / "groups.png").exists()
    assert sorted(folder.name for folder in out.iterdir() if folder.is_dir()) == [
        "base-seed0", "base-seed1", "gh-seed0", "gh-seed1",
    ]  # fmt: skip
