"""Runs whose images are kept decoded, and runs that refuse dirt."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from evensphere.data.encoded import FileSource
from evensphere.data.folder import folder
from evensphere.data.source import take
from evensphere.errors import InputError
from evensphere.recipes import storing
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

SETTINGS = ["epochs=2", "views.size=8", "backbone=resnet-small", "backbone.width=4", "backbone.stages=2"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENSPHERE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of many sizes, and one that is none."""
    root = tmp_path_factory.mktemp("images")
    noise = np.random.RandomState(0)
    for i in range(20):
        pixels = noise.randint(0, 256, (12 + i, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{i:02}.png")
    (root / "broken.png").write_text("no image")
    return root


def recipe_for(images: Path, *settings: str) -> Recipe:
    return with_data(get_recipe("folder"), str(images)).set([*SETTINGS, "workers=0", *settings])


def losses(run: RunDir) -> list[float]:
    return [event["loss"] for event in run.read_metrics() if event["event"] == "step"]


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    reads: list[int] = []
    read = FileSource.read

    def counted(self: FileSource, i: int) -> Tensor:
        reads.append(i)
        return read(self, i)

    monkeypatch.setattr(FileSource, "read", counted)
    return reads


def test_memory_and_cache_give_the_same_bits_and_files_others(images: Path, tmp_path: Path) -> None:
    runs = {
        storage: RunDir(train(recipe_for(images, f"storage={storage}"), tmp_path / storage))
        for storage in ("memory", "cache", "device", "files")
    }
    encoders = {storage: run.encoder_file.read_bytes() for storage, run in runs.items()}
    assert encoders["memory"] == encoders["cache"] == encoders["device"] != encoders["files"]
    for storage, run in runs.items():
        assert run.read_recipe()["storage"] == storage
        assert run.read_images() == [f"{i:02}.png" for i in range(20)]
        assert [path for path, _ in run.read_skipped()] == ["broken.png"]


def test_where_nothing_is_shrunk_all_storages_give_the_same_bits(images: Path, tmp_path: Path) -> None:
    runs = [
        RunDir(train(recipe_for(images, "views.size=32", f"storage={storage}"), tmp_path / storage))
        for storage in ("memory", "files")
    ]
    assert runs[0].encoder_file.read_bytes() == runs[1].encoder_file.read_bytes()


def test_workers_change_nothing(images: Path, tmp_path: Path) -> None:
    for storage in ("memory", "cache"):
        runs = [
            RunDir(
                train(recipe_for(images, f"storage={storage}", f"workers={workers}"), tmp_path / f"{storage}{workers}")
            )
            for workers in (0, 2)
        ]
        assert losses(runs[0]) == losses(runs[1])


@pytest.mark.parametrize("storage", ["memory", "cache"])
def test_every_image_is_decoded_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    reads = count_reads(monkeypatch)
    train(recipe_for(images, f"storage={storage}"), tmp_path / "first")
    assert len(reads) - len(set(reads)) == 21, "beside those that the size of all was estimated from"
    reads.clear()
    train(recipe_for(images, f"storage={storage}"), tmp_path / "second")
    assert len(reads) == (21 if storage == "cache" else 42)


@pytest.mark.parametrize("storage", ["memory", "cache", "files"])
def test_a_resumed_run_keeps_its_storage_and_its_bits(
    images: Path, tmp_path: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"storage={storage}", "epochs=4", "checkpoint_every=1 epoch"]
    whole = RunDir(train(recipe_for(images, *settings), tmp_path / "whole"))
    halves = RunDir(tmp_path / "halves")
    stopped = halves.append_metrics.__func__  # type: ignore[attr-defined]

    def stop(self: RunDir, event: dict[str, object]) -> None:
        if event.get("epoch") == 2:
            raise KeyboardInterrupt
        stopped(self, event)

    with monkeypatch.context() as patched:
        patched.setattr(RunDir, "append_metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe_for(images, *settings), halves.path)
    assert halves.checkpoint_steps()
    train(recipe_for(images, "storage=auto", *settings[1:]), halves.path, resume=True)
    assert losses(halves) == losses(whole)
    assert halves.encoder_file.read_bytes() == whole.encoder_file.read_bytes()
    other = "files" if storage != "files" else "memory"
    with pytest.raises(InputError, match=rf"begun with storage={storage}"):
        train(recipe_for(images, f"storage={other}", *settings[1:]), halves.path, resume=True)


def test_a_run_of_before_there_was_a_choice_reads_files() -> None:
    content = get_recipe("folder").to_json()
    del content["storage"]
    assert Recipe.from_json(content).storage == "files"


def test_a_cache_that_cannot_be_written_becomes_files(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("EVENSPHERE_CACHE", str(tmp_path / "a file" / "cache"))
    text = io.StringIO()
    run = RunDir(train(recipe_for(images, "storage=cache"), tmp_path / "run", console=Console(file=text)))
    assert run.read_recipe()["storage"] == "files"
    printed = text.getvalue()
    assert "Storage: cache" in printed
    assert printed.count("The cache cannot be written") == 1
    plain = RunDir(train(recipe_for(images, "storage=files"), tmp_path / "plain"))
    assert losses(run) == losses(plain)


def test_a_run_whose_cache_is_gone_for_good_goes_on_with_the_same_pixels(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = take(folder(images).pretrain, torch.arange(20))
    recipe = recipe_for(images, "storage=cache")
    cached = storing.pixels_again(recipe, source, torch.device("cpu"), Console(quiet=True))

    def fail(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(storing, "build_cache", fail)
    again = storing.pixels_again(recipe, source, torch.device("cpu"), Console(quiet=True))
    assert all(cached.read(i).equal(again.read(i)) for i in range(20))


def test_some_images_are_taken_from_the_cache_of_all(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe_for(images, "storage=cache"), tmp_path / "all")
    chosen = tmp_path / "chosen.txt"
    chosen.write_text("\n".join(f"{i:02}.png" for i in range(18, 3, -1)))
    some = recipe_for(images, "storage=cache", f"images={chosen}")
    run = RunDir(train(some, tmp_path / "some"))
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]) == 1
    monkeypatch.setenv("EVENSPHERE_CACHE", str(tmp_path / "another"))
    own = RunDir(train(some, tmp_path / "own"))
    assert losses(run) == losses(own)
    assert run.read_images() == own.read_images()


# --- what is said, and --strict ---------------------------------------------------------------------------------------


def test_storage_and_summary_are_one_line_each(images: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    run = train(recipe_for(images), tmp_path / "run", console=Console(file=text))
    lines = text.getvalue().splitlines()
    assert [line for line in lines if line.startswith("Storage: memory (")]
    assert lines[-1] == f"Trained on 20 images; 1 unreadable images skipped ({run / 'skipped.csv'})."


def test_strict_refuses_dirt_and_writes_nothing(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        train(recipe_for(images), tmp_path / "run", strict=True)
    assert str(refused.value).startswith("1 of the 21 images of")
    assert "broken.png (not an image, or of a kind Pillow cannot read)" in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_strict_takes_clean_images(images: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for i in range(4):
        os.link(images / f"{i:02}.png", clean / f"{i}.png")
    run = RunDir(train(recipe_for(clean), tmp_path / "run", strict=True))
    assert json.loads(run.recipe_file.read_text())["resolved"]["num_images"] == 4
    assert run.read_skipped() == []


def test_strict_counts_folders_that_could_not_be_listed(images: Path) -> None:
    source = take(folder(images).pretrain, torch.arange(20))
    source.unlisted = (("secret", "Permission denied"),)
    look = (recipe_for(images), source, torch.device("cpu"), Console(quiet=True))
    _, found = storing.look_at(*look)
    assert found.skipped == [("secret", "Permission denied")]
    with pytest.raises(InputError, match=r"1 of the 20 images .* being secret \(Permission denied\)"):
        storing.look_at(*look, strict=True)


def test_the_device_holds_one_tensor(tmp_path: Path) -> None:
    recipe = get_recipe("digits-lt").set(["epochs=1", "backbone.width=4"])
    run = RunDir(train(recipe, tmp_path / "run"))
    storage = "device" if torch.cuda.is_available() else "memory"
    assert run.read_recipe()["storage"] == storage
    other = RunDir(
        train(get_recipe("digits-lt").set(["epochs=1", "backbone.width=4", "storage=device"]), tmp_path / "d")
    )
    assert losses(run) == losses(other)
