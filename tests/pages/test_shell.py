"""The commands that pages show run, one page after the other, in a folder with some small images.

They run as they are shown, in this process, with three differences: training is made short (SHORT is appended to
every `train`), 20000 images become 30, and words that stand for something (RECIPE, DATA) get a value. Runs that a
page speaks of without having made them lie ready, as do its images. What cannot run here is listed in CANNOT with
the reason; test_commands.py parses it all the same.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.data.test_cifar import write_binary_100
from tests.pages.reading import ROOT, Call, Page, pages

from evensphere.cli.main import main

CANNOT = {
    "torchrun": "starts several processes (tests/distributed does)",
    "srun": "needs SLURM",
    "--devices": "starts several processes (tests/distributed does)",
    "reproduce": "takes hours (tests/reproduce runs the smallest scale)",
    "watch": "goes on until it is stopped (tests/report does)",
    "data.download=true": "fetches a data set",
    "imagenet-lt": "needs the images of ImageNet",
    "places-lt": "needs the images of Places",
    "--init": "needs weights of somebody else's on the disk (tests/recipes does)",
    "--weights": "needs the weights of a timm model on the disk (tests/curation does)",
}

SHORT = {
    "digits-lt": ("epochs=4", "backbone.width=4", "backbone.stages=1"),
    "cifar100-lt-small": ("epochs=2", "backbone.width=4", "backbone.stages=1"),
    # a ResNet that others know, so that it can be exported; of little work on images of 32 pixels
    "folder": ("epochs=2", "backbone.stem=imagenet", "checkpoint_every=2 epochs", "workers=0"),
}

STANDS_FOR = {"RECIPE": "folder", "DATA": "path/to/images", "RUN": "runs/mine", "20000": "30"}


def can_run(call: Call) -> bool:
    return call.ours is not None and not set(CANNOT) & {*call.words[:1], *call.ours}


PAGES = [page for page in pages() if any(can_run(call) for call in page.calls)]


def shortened(arguments: tuple[str, ...]) -> list[str]:
    """What `evensphere` is given here: patterns of files spelled out, training made short."""
    words = [STANDS_FOR.get(word, word) for word in arguments]
    words = [found for word in words for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    if words[0] == "train":
        words += [word for setting in SHORT[words[1]] for word in ("--set", setting)]
    return words


def evensphere(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command, inside this process."""
    monkeypatch.setattr(sys, "argv", ["evensphere", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


# --- what readers have ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images and runs under the names that pages use."""
    folder = tmp_path_factory.mktemp("reader")
    photos(folder / "path/to/images", common=40, seldom=20, rare=10)
    (folder / "path/to/images/common/broken.png").write_bytes(b"no picture")
    for more in ("more", "others"):
        photos(folder / "path/to" / more, all=20)
    photos(folder / "path/to/labelled", common=12, seldom=12, rare=12)
    photos(folder / "photos", common=150, seldom=150, rare=150)
    write_binary_100(folder / "path/to/cifar", per_class=150)
    labelled = sorted((folder / "path/to/labelled").rglob("*.png"))
    rows = [f"path/to/labelled/{file.parent.name}/{file.name},{file.parent.name}" for file in labelled]
    (folder / "my-labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs(patch)
        yield folder


def photos(folder: Path, **counts: int) -> None:
    """Noise whose brightness tells the class."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for kind, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(80 * kind, 80 * kind + 96, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def runs(patch: pytest.MonkeyPatch) -> None:
    wanted: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
        "mine": ("folder", "gh", 0, ("--data", "path/to/images"))
    }
    for seed in (0, 1):
        wanted |= {f"gh-seed{seed}": ("digits-lt", "gh", seed, ())}
        wanted |= {f"control-seed{seed}": ("digits-lt", "two-stage", seed, ())}
    for name, (recipe, arm, seed, more) in wanted.items():
        given = ("train", recipe, "--arm", arm, *more, "--set", f"seed={seed}", "--out", f"runs/{name}")
        assert evensphere(patch, *shortened(given)) == 0
        assert evensphere(patch, "evaluate", f"runs/{name}") == 0
    for name, made in {
        "gh": "gh-seed0",
        "control": "control-seed0",
        "base": "control-seed1",
        "old": "gh-seed1",
    }.items():
        shutil.copytree(f"runs/{made}", f"runs/{name}")


# --- what they do -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_runs(
    page: Page,
    readers_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = tmp_path / "here"
    shutil.copytree(readers_folder, here, copy_function=os.link)  # no file is written to again, see disk.py
    monkeypatch.chdir(here)
    for call in page.calls:
        if can_run(call):
            run(call, monkeypatch, capsys)


def run(call: Call, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call.ours is not None
    for name, value in call.environment.items():
        assert name == "PYTHONPATH"
        monkeypatch.syspath_prepend(str(ROOT / value))
    words = shortened(call.ours)
    out = Path(words[words.index("--out") + 1]) if "--out" in words else None
    if words[0] == "train" and out is not None:
        shutil.rmtree(out, ignore_errors=True)  # one that lay ready for pages that do not make it
    code = evensphere(monkeypatch, *words)
    printed = capsys.readouterr()
    assert code == 0, f"{call.text}\n{printed.out}{printed.err}"
    assert out is None or out.exists()


def test_what_cannot_run_is_still_shown_somewhere() -> None:
    """A reason that no page needs any more is to be taken out."""
    shown = {word for page in pages() for call in page.calls for word in call.words}
    assert set(CANNOT) - {"watch"} <= shown


def test_most_of_what_pages_show_runs() -> None:
    ours = [call for page in pages() for call in page.calls if call.ours is not None]
    assert sum(can_run(call) for call in ours) > 0.8 * len(ours)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_is_made_is_a_target_of_the_makefile(page: Page) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [call.words[1] for call in page.calls if call.words[0] == "make"]
    assert [one for one in targets if not re.search(rf"^{one}:", makefile, re.MULTILINE)] == []
