"""How fast image files become crops, against bare torchvision loops, in one interleaved run.

    python benchmarks/loader.py --photos FOLDER [--cifar PATH] --out loader.jsonl

Each loop makes two 224-pixel crops (8 to 100 % of the area, bicubic, antialiased) of every image of a folder, in
batches of 64, with the same number of worker processes:

    evensphere      our Loader, images decoded from their files
    pillow          torchvision's ImageFolder and v2.RandomResizedCrop on Pillow images, into tensors
    decode_jpeg     torchvision.io.decode_jpeg and v2.RandomResizedCrop on tensors, where torchvision still has it

The photos are those of FOLDER as they are, and mosaics of them of 480 and 1536 pixels: large images with as much detail
in a pixel as photos have. Every round runs every loop once; the first round is a warm-up and does not count. A row says
how many microseconds an image took, of the wall's clock and of all processes' CPU time, and the ratio of its median to
ours.

With --cifar also the share of an epoch of cifar100-lt-small that is spent on getting batches.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import PIL
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

import evensphere
from evensphere.data import folder as folders
from evensphere.data.augment import VIEWS, Views
from evensphere.data.loader import Loader

BATCH, SIZE = 64, 224
ENDINGS = (".jpg", ".jpeg")
CROP = v2.RandomResizedCrop(SIZE, (0.08, 1.0), interpolation=InterpolationMode.BICUBIC, antialias=True)

Loop = Callable[[], Iterable[Any]]


def main() -> None:
    arguments = _arguments()
    device = f"CPU, {torch.get_num_threads()} threads ({platform.processor() or platform.machine()})"
    versions = {
        "evensphere": evensphere.__version__,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "pillow": PIL.__version__,
    }
    with tempfile.TemporaryDirectory() as temporary, arguments.out.open("a") as out:

        def report(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                line = json.dumps(row | {"device": device, "versions": versions})
                print(line, flush=True)
                out.write(line + "\n")

        for name, folder in _folders(arguments.photos, Path(temporary), arguments.images):
            for workers in arguments.workers:
                report(_compare(f"{name}, {workers} workers", _loops(folder, workers), arguments.rounds))
        if arguments.cifar is not None:
            report(_loaders_share(arguments.cifar, Path(temporary), arguments.rounds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG photos")
    parser.add_argument("--cifar", type=Path, help="folder that holds cifar-100-binary")
    parser.add_argument("--out", type=Path, default=Path("loader.jsonl"))
    parser.add_argument("--rounds", type=int, default=7, help="that count")
    parser.add_argument("--images", type=int, default=1024, help="of the folder; a half and an eighth of it as mosaics")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    return parser.parse_args()


# --- the images -------------------------------------------------------------------------------------------------------


def _folders(photos: Path, temporary: Path, count: int) -> Iterable[tuple[str, Path]]:
    files = sorted(file for file in photos.rglob("*") if file.suffix.lower() in ENDINGS)
    files = [files[i * len(files) // count] for i in range(count)] if len(files) > count else files
    for name, number, columns in (("photos", len(files), 1), ("480 px", count // 2, 5), ("1536 px", count // 8, 16)):
        folder = temporary / name / "class"
        folder.mkdir(parents=True)
        for i in range(number):
            target = folder / f"{i:05}.jpg"
            if columns == 1:
                target.write_bytes(files[i].read_bytes())
            else:
                _mosaic(files, i, columns).save(target, quality=90)
        yield name, folder.parent


def _mosaic(files: list[Path], number: int, columns: int) -> Image.Image:
    """3/4 as many rows as columns of photos of 96 pixels."""
    rows = columns * 3 // 4 + (columns == 5)
    mosaic = Image.new("RGB", (columns * 96, rows * 96))
    for i in range(columns * rows):
        with Image.open(files[(number * columns * rows + i) % len(files)]) as photo:
            mosaic.paste(photo.convert("RGB").resize((96, 96)), (i % columns * 96, i // columns * 96))
    return mosaic


# --- the loops --------------------------------------------------------------------------------------------------------


def _loops(folder: Path, workers: int) -> dict[str, Loop]:
    views = Views(SIZE, **VIEWS["photos"])
    ours = Loader(folders.folder(folder).pretrain, BATCH, views, 0, workers)
    loops: dict[str, Loop] = {
        "evensphere": lambda: ours.batches(0, ours.steps_per_epoch),
        "pillow": lambda: _torch_loader(ImageFolder(folder, _two_crops_of_pillow), workers),
    }
    if hasattr(torchvision.io, "decode_jpeg"):
        loops["decode_jpeg"] = lambda: _torch_loader(_DecodeJpeg(folder), workers)
    return loops


def _torch_loader(dataset: Dataset[Any], workers: int) -> Iterable[Any]:
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)


def _two_crops_of_pillow(image: Image.Image) -> tuple[Tensor, Tensor]:
    return v2.functional.pil_to_tensor(CROP(image)), v2.functional.pil_to_tensor(CROP(image))


class _DecodeJpeg(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, folder: Path) -> None:
        self.files = [str(file) for file in sorted(folder.rglob("*.jpg"))]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated by torchvision 0.29
            image = torchvision.io.decode_jpeg(
                torchvision.io.read_file(self.files[i]), torchvision.io.ImageReadMode.RGB
            )
        return CROP(image), CROP(image)


# --- measuring --------------------------------------------------------------------------------------------------------


def _compare(what: str, loops: dict[str, Loop], rounds: int) -> list[dict[str, Any]]:
    wall: dict[str, list[float]] = {name: [] for name in loops}
    cpu: dict[str, list[float]] = {name: [] for name in loops}
    for counts in [False] + [True] * rounds:
        for name, loop in loops.items():
            wall_seconds, cpu_seconds, images = _time(loop)
            if counts:
                wall[name].append(wall_seconds / images * 1e6)
                cpu[name].append(cpu_seconds / images * 1e6)
    return [
        _row(f"{what}: {name}", times[name], f"us an image ({clock})", times["evensphere"])
        for clock, times in (("wall", wall), ("CPU", cpu))
        for name in loops
    ]


def _time(loop: Loop) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of this process and its workers, images."""
    wall, cpu, images = time.perf_counter(), _cpu_seconds(), 0
    for batch in loop():
        first = batch[1].images[0] if isinstance(batch[0], int) else batch[0]
        images += len(first[0]) if isinstance(first, list | tuple) else len(first)
    return time.perf_counter() - wall, _cpu_seconds() - cpu, images


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _row(what: str, values: list[float], unit: str, ours: list[float]) -> dict[str, Any]:
    median = statistics.median(values)
    return {
        "what": what,
        "n": len(values),
        "median": round(median, 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
        "unit": unit,
        "ratio": round(median / statistics.median(ours), 3),
    }


def _loaders_share(cifar: Path, temporary: Path, rounds: int) -> list[dict[str, Any]]:
    """Of an epoch's seconds, those in which the training loop waited for its next batch."""
    from evensphere.recipes.recipe import get_recipe, with_data
    from evensphere.recipes.run import train
    from evensphere.rundir import RunDir

    waited = 0.0
    batches = Loader.batches

    def timed(self: Loader, first_step: int, total_steps: int) -> Iterable[Any]:
        nonlocal waited
        iterator, begun = batches(self, first_step, total_steps), time.perf_counter()
        for item in iterator:
            waited += time.perf_counter() - begun
            yield item
            begun = time.perf_counter()

    recipe = with_data(get_recipe("cifar100-lt-small", "base"), str(cifar)).set(["epochs=1", "monitor="])
    shares = []
    Loader.batches = timed  # type: ignore[method-assign, assignment]
    try:
        for number in range(rounds):
            waited = 0.0
            run = RunDir(train(recipe, temporary / f"run{number}"))
            shares.append(100 * waited / (run.train_seconds() or float("nan")))
    finally:
        Loader.batches = batches  # type: ignore[method-assign]
    return [_row("cifar100-lt-small: loader's share of an epoch", shares, "%", shares)]


if __name__ == "__main__":
    main()
