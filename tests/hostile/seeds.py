"""Valid files of every kind that is fuzzed, small ones."""

from __future__ import annotations

import io
import tarfile
import zipfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import tifffile
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors
from torch import nn

from evensphere.engine.checkpoint import FORMAT
from evensphere.recipes.recipe import get_recipe

PIXELS = np.random.RandomState(0).randint(0, 256, (9, 7, 3), np.uint8)
PICTURE = Image.fromarray(PIXELS)


def encoded(kind: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def npy(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npz(**values: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **values)
    return stream.getvalue()


PNG = encoded("png")
IMAGES = [
    PNG,
    encoded("png", PICTURE.quantize(16), transparency=3),
    encoded("jpeg"),
    encoded("jpeg", progressive=True, exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    encoded("gif", save_all=True, append_images=[PICTURE.rotate(90)]),
    encoded("bmp"),
    encoded("webp"),
    encoded("webp", lossless=True),
    encoded("tiff"),
    encoded("tiff", compression="tiff_lzw"),
    encoded("ppm"),
    tiff(np.tile(PIXELS, (1, 1, 2)), photometric="minisblack", planarconfig="contig"),
    tiff(PIXELS.astype(np.uint16) * 257, photometric="rgb"),
    npy(PIXELS),
]


def tar(mode: tarfile.TarInfo | None = None, kind: int = tarfile.GNU_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name in ("a/1.png", "a/2.png", "b/3.png", "b/" + "long" * 30 + ".png"):
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
    return stream.getvalue()


def zipped(method: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
            archive.writestr(name, PNG)
    return stream.getvalue()


def parquet(**options: Any) -> bytes:
    stream = io.BytesIO()
    columns = {"image": pa.array([PNG] * 4, pa.binary()), "label": ["a", "a", "b", "b"]}
    pyarrow.parquet.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def checkpoint() -> bytes:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "format": FORMAT, "step": 3}
    stream = io.BytesIO()
    torch.save(state | {"metrics_size": 0}, stream)
    return stream.getvalue()


def encoder() -> bytes:
    return save_safetensors(nn.Linear(3, 2).state_dict(), {"evensphere": "{}"})


def weights() -> bytes:
    """A checkpoint as trainers write them."""
    stream = io.BytesIO()
    state = {f"module.backbone.0.{name}": value for name, value in nn.Linear(3, 2).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}, stream)
    return stream.getvalue()


def recipe() -> dict[str, Any]:
    content = get_recipe("digits-lt").to_json()
    content["resolved"] = {"num_images": 600, "channels": 1, "steps_per_epoch": 5, "total_steps": 500, "anchors": 10}
    return content


CARD = {
    "format": 1,
    "source": {"name": "folder", "options": {"path": "pictures"}},
    "division": {},
    "classes": ["a", "b"],
    "group_rule": "thirds",
    "lists": {part: {"file": "train.txt", "images": 1, "counts": [1, 0], "sha256": "0"} for part in ("train", "probe")},
    "official": {},
}

CLASS_SCORES = {"many": 90.0, "medium": 80.5, "few": 70.0, "average": 80.2, "std": 8.1, "std_sample": 9.9}
RUN_FILES: dict[str, Any] = {
    "recipe.json": recipe(),
    "eval.json": {
        "probe": CLASS_SCORES | {"per_class": [90.0, 80.0, 70.0], "test_images": {"many": 1, "medium": 1, "few": 1}},
        "knn_untrained": CLASS_SCORES,
        "knn": CLASS_SCORES,
        "classes": ["a", "b", "c"],
        "train_counts": [9, 5, 1],
        "groups": ["many", "medium", "few"],
        "group_rule": "thirds",
        "settings": {"data": "digits"},
    },
    "environment.json": {"python": "3.11", "packages": {}},
    "metrics.jsonl": [
        {"event": "step", "step": 0, "epoch": 0, "loss": 4.0, "ssl": 3.5, "gh": 0.5, "gh_weight": 1.0, "lr": 0.1},
        {"event": "population", "step": 3, "epoch": 0, "prior": [0.5, 0.3, 0.2], "effective": 2.8},
        {"event": "evaluation", "step": 4, "epoch": 0, "knn": 80.0, "knn_many": 90.0},
        {"event": "stopped", "step": 4, "reason": "The loss became nan."},
    ],
    "skipped.csv": "path,reason\na.png,the file is empty\n",
    "diagnosis.json": {"findings": [dict.fromkeys(("name", "title", "level", "sentence", "advice"), "info")]},
    "map.json": {
        "images": 9,
        "names": ["a.png", "b/c.png"],
        "x": [0, 9999],
        "y": [5, 7],
        "tenth": [0, 9],
        "region": [1, 0],
        "region_images": [5, 4],
        "label": [0, 1],
        "classes": ["a", "b"],
        "groups": ["many", "few"],
        "thumbnails": {"0": "UklGRhwAAABXRUJQVlA4TA8AAAAvAAAAAAcQ/Y/+ByKi/wEA"},
    },
}
