"""What strangers' bytes are handed to, one function for each kind: (content, an empty folder) -> nothing.

Each does what a command does with such a file, and may end in an InputError. The worker calls them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from evensphere.data.archive import archive
from evensphere.data.arrays import array
from evensphere.data.card import split
from evensphere.data.decode import count_channels, decode
from evensphere.data.lists import listed
from evensphere.data.shards import shards
from evensphere.data.source import Source, UnreadableImage
from evensphere.data.table import table
from evensphere.engine.checkpoint import load_checkpoint, load_encoder
from evensphere.engine.weights import load_weights
from evensphere.errors import TrainingStopped
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.report.page import render_page
from evensphere.report.record import read_run
from evensphere.rundir import RunDir

Target = Callable[[bytes, Path], None]


def look_at(source: Source, most: int = 8) -> None:
    """What training does first: every image is read, and may be refused."""
    for i in range(min(len(source), most)):
        source.location(i)
        source.stamp(i)
        with suppress(UnreadableImage):
            source.read(i)


def put(content: bytes, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


# --- images and collections -------------------------------------------------------------------------------------------


def image(content: bytes, folder: Path) -> None:
    with suppress(UnreadableImage):
        count_channels(io.BytesIO(content))
    for channels, bits in ((3, 8), (1, 8), (4, 16), (6, 8)):
        with suppress(UnreadableImage):
            decode(io.BytesIO(content), channels, bits)


def in_list(content: bytes, folder: Path) -> None:
    look_at(listed(put(content, folder / "list.txt")).pretrain)


def in_json_list(content: bytes, folder: Path) -> None:
    look_at(listed(put(content, folder / "images.json")).pretrain)


def in_csv(content: bytes, folder: Path) -> None:
    look_at(table(put(content, folder / "table.csv")).pretrain)


def in_parquet(content: bytes, folder: Path) -> None:
    look_at(table(put(content, folder / "table.parquet")).pretrain)


def in_zip(content: bytes, folder: Path) -> None:
    look_at(archive(put(content, folder / "images.zip")).pretrain)


def in_tar(content: bytes, folder: Path) -> None:
    file = put(content, folder / "images.tar")
    try:
        look_at(archive(file).pretrain)
    finally:
        stream = shards(file).pretrain
        with suppress(UnreadableImage):
            list(stream.read_shard(0))  # type: ignore[attr-defined]


def in_npy(content: bytes, folder: Path) -> None:
    look_at(array(put(content, folder / "images.npy")).pretrain)


def in_npz(content: bytes, folder: Path) -> None:
    look_at(array(put(content, folder / "images.npz")).pretrain)


def in_card(content: bytes, folder: Path) -> None:
    (folder / "pictures").mkdir()
    (folder / "train.txt").write_text("a/1.png 0\n")
    look_at(split(put(content, folder / "card.json")).pretrain)


# --- runs -------------------------------------------------------------------------------------------------------------


def in_recipe(content: bytes, folder: Path) -> None:
    """A stranger's recipe.json: what `evaluate` and `train --resume` make of it before they read images."""
    run = RunDir(folder)
    put(content, run.recipe_file)
    with suppress(ValueError):  # the report describes what it cannot use
        read_run(folder)
    recipe = Recipe.from_json(run.read_recipe())
    assert isinstance(recipe.seed, int)
    build_parts(recipe)


def build_parts(recipe: Recipe) -> None:
    views = build("views", recipe.views, seed=recipe.seed)
    encoder = build_encoder(recipe, len(views.mean))
    method = build("method", recipe.method, encoder=encoder, num_samples=600)
    build("harmonizer", recipe.harmonizer, dim=method.embedding_dim, num_samples=600, steps_per_epoch=9)
    build("schedule", recipe.schedule, epochs=recipe.epochs)
    if recipe.optimizer.name in ("sgd", "lars", "adamw", "asam"):
        build("optimizer", recipe.optimizer, parameters=method.parameters())


def in_settings(content: bytes, folder: Path) -> None:
    """--set, as JSON: a list of settings."""
    build_parts(get_recipe("digits-lt").set(json.loads(content)))


def in_checkpoint(content: bytes, folder: Path) -> None:
    run = RunDir(folder)
    put(content, run.checkpoint_file(3))
    model = nn.Linear(3, 2)
    load_checkpoint(run, model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), torch.device("cpu"))


def in_encoder(content: bytes, folder: Path) -> None:
    run = RunDir(folder)
    put(content, run.encoder_file)
    load_encoder(run, nn.Linear(3, 2))


def in_weights(content: bytes, folder: Path) -> None:
    """A file to begin with: torch's or safetensors."""
    file = put(content, folder / ("weights.pth" if content[:2] == b"PK" else "weights.safetensors"))
    load_weights(nn.Sequential(nn.Linear(3, 2)), file)


def in_report(content: bytes, folder: Path) -> None:
    """A run folder as JSON: {file's name: its text}."""
    for name, text in json.loads(content).items():
        put(text.encode("utf-8", "surrogatepass"), folder / name)
    render_page([read_run(folder)])


# --- whole runs -------------------------------------------------------------------------------------------------------


def in_training(content: bytes, folder: Path) -> None:
    """A tiny run with fuzzed settings or images, as JSON: {"settings": [...], "images": [bytes in hex]}."""
    given = json.loads(content)
    small = ["epochs=1", "evaluate_every=1 epochs", "batch_size=64", "workers=0", "near_duplicates=each"]
    recipe = get_recipe("digits-lt").set(small)
    if given["images"]:
        for number, bytes_in_hex in enumerate(given["images"]):
            put(bytes.fromhex(bytes_in_hex), folder / f"images/{number % 2}/{number}.png")
        tiny = ["views=digits", "views.size=8", "backbone=resnet-small", "backbone.width=4", "backbone.stages=2"]
        tiny += ["data.channels=1", "precision=32-true"]
        recipe = with_data(get_recipe("folder").set([*small, *tiny]), str(folder / "images"))
    try:
        run = train(recipe.set(given["settings"]), folder / "run")
        if not given["images"]:
            evaluate(run, metrics=["knn"])
    except TrainingStopped:  # which says where and why
        pass


TARGETS: dict[str, Target] = {
    "image": image,
    "list": in_list,
    "json_list": in_json_list,
    "csv": in_csv,
    "parquet": in_parquet,
    "zip": in_zip,
    "tar": in_tar,
    "npy": in_npy,
    "npz": in_npz,
    "card": in_card,
    "recipe": in_recipe,
    "settings": in_settings,
    "checkpoint": in_checkpoint,
    "encoder": in_encoder,
    "weights": in_weights,
    "report": in_report,
    "training": in_training,
}
