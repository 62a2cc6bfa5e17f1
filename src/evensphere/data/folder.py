"""Your own image files: listed in the same order on every machine, decoded one by one, the broken ones set aside.

Folders found in the wild hold truncated downloads, text files called .jpg, palettes, alpha channels, CMYK and 16-bit
scans. Each either becomes the picture a viewer would show, or is reported with a reason; none is silently passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from evensphere.data.source import ArraySource, Source, Splits, UnreadableImage, take
from evensphere.data.subset import stratified_split
from evensphere.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_VALIDATION_NAMES = ("val", "validation")


def folder(path: str | Path, channels: int = 3, seed: int = 0) -> Splits:
    """A folder of images, in one of three shapes.

    train and test inside (and perhaps val or validation): pretrain and probe are train, the others are themselves. With
        train and val only, val is the test set, as is usual for ImageNet. Without class folders in train there is
        nothing to fit a probe on, and only pretrain is given. The other splits may only hold classes that train has.
    class folders (every image lies in a sub-folder; two or more classes have three images or more): pretrain is
        everything; probe, validation and test are a stratified 60/20/20 split of the same images, drawn with `seed`.
        The encoder has then seen the test images' pixels, though never their labels.
    anything else: pretrain is everything, there is nothing to evaluate with.

    channels: 3 (RGB) or 1 (grey); images are converted. Sub-folders and files whose names begin with a dot are ignored.
    Raises InputError for a path that is missing or not a folder, and for fewer than two images to train on.
    """
    root = Path(path).expanduser()
    names = _official_splits(root)
    pretrain = FolderSource(root, names.get("train", ""), channels)
    if len(pretrain) < 2:
        raise InputError(f"{pretrain.name} holds one image; training compares images and needs at least two.")
    if "train" not in names:
        return _split_by_class(pretrain, seed)
    if pretrain.class_names is None:
        return Splits(pretrain)
    parts = {part: FolderSource(root, name, channels, pretrain.class_names) for part, name in names.items()}
    return Splits(pretrain, probe=pretrain, validation=parts.get("validation"), test=parts["test"])


def labelled(path: str | Path, channels: int = 3, seed: int = 0) -> Splits:
    """`folder`, for evaluation: raises InputError if the folder has no labels to evaluate with."""
    splits = folder(path, channels, seed)
    if splits.probe is None or splits.test is None:
        raise InputError(
            f"{path} has no labels to evaluate with: put every image in a sub-folder named after its class, with three "
            "images or more in at least two classes, or such class folders inside train and test."
        )
    return splits


def _official_splits(root: Path) -> dict[str, str]:
    """{"train": its sub-folder, "test": ..., "validation": ...}; empty if the folder is not divided so."""
    present = {name for name in ("train", "test", *_VALIDATION_NAMES) if (root / name).is_dir()}
    validation = next((name for name in _VALIDATION_NAMES if name in present), None)
    if "train" not in present or not ("test" in present or validation):
        return {}
    if "test" not in present:
        return {"train": "train", "test": str(validation)}
    return {"train": "train", "test": "test"} | ({"validation": validation} if validation else {})


def _split_by_class(pretrain: FolderSource, seed: int) -> Splits:
    labels = pretrain.labels()
    if labels is None or int((torch.bincount(labels) >= 3).sum()) < 2:
        return Splits(pretrain)
    train, validation, test = stratified_split(labels, (0.6, 0.2, 0.2), seed)
    return Splits(pretrain, take(pretrain, train), take(pretrain, validation), take(pretrain, test))


class FolderSource(Source):
    """The images below root/part. Their order is that of the bytes of their posix paths, whatever the file system says.

    class_names: None finds them: the names of part's sub-folders, sorted, if every image lies in one and there are two
        or more; otherwise there are no labels. If given, every image must lie in a sub-folder of one of these names.
    """

    def __init__(
        self, root: str | Path, part: str = "", channels: int = 3, class_names: Sequence[str] | None = None
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f"Images from files have 3 channels (RGB) or 1 (grey), not {channels}.")
        self.root = Path(root).expanduser()
        self.name = str(self.root / part)
        self.channels = channels
        self.image_size = None
        self.paths = _list_images(self.root / part, prefix=f"{part}/" if part else "")
        folders = [_first_folder(path, part) for path in self.paths]
        self.class_names = tuple(class_names) if class_names is not None else _class_names(folders)
        self._labels = None if self.class_names is None else self._label(folders, self.class_names)

    def _label(self, folders: Sequence[str | None], class_names: tuple[str, ...]) -> Int64[Tensor, " n"]:
        number = {name: c for c, name in enumerate(class_names)}
        for path, name in zip(self.paths, folders, strict=True):
            if name not in number:
                where = "in no class folder" if name is None else f"of class '{name}'"
                raise InputError(
                    f"{self.root / path} is {where}, but training knows {len(number)} classes "
                    f"('{class_names[0]}' ... '{class_names[-1]}'); the class folders' names must agree."
                )
        return torch.tensor([number[name] for name in folders if name is not None], dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, i: int) -> UInt8[Tensor, "c h w"]:
        return decode(self.root / self.paths[i], self.channels)

    def location(self, i: int) -> str:
        # file names need not be valid text; reports and tables do
        return os.fsencode(self.paths[i]).decode("utf-8", "backslashreplace")

    def labels(self) -> Int64[Tensor, " n"] | None:
        return self._labels


# Listing


def _list_images(top: Path, prefix: str) -> list[str]:
    """Posix paths relative to the source's root, sorted by their bytes."""
    if not top.exists():
        raise InputError(f"There is no folder {top}; check the path.")
    if not top.is_dir():
        raise InputError(f"{top} is a file; give the folder that holds the images.")
    paths = sorted(_walk(str(top), prefix, frozenset()), key=os.fsencode)
    if not paths:
        raise InputError(f"{top} holds no image files ({' '.join(EXTENSIONS)}); check the path.")
    return paths


def _walk(top: str, prefix: str, ancestors: frozenset[str]) -> Iterator[str]:
    """Links to folders are followed, except back to a folder that contains them."""
    here = os.path.realpath(top)
    if here in ancestors:
        return
    try:
        entries = list(os.scandir(top))
    except OSError as error:
        raise InputError(f"The folder {top} cannot be listed ({error.strerror}); fix it or move it away.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", ancestors | {here})
        elif entry.name.lower().endswith(EXTENSIONS):
            yield prefix + entry.name


def _first_folder(path: str, part: str) -> str | None:
    """The class folder an image lies in, None for an image that lies directly in `part`."""
    inside = path[len(part) + 1 :] if part else path
    name, slash, _ = inside.partition("/")
    return name if slash else None


def _class_names(folders: Iterable[str | None]) -> tuple[str, ...] | None:
    names = set(folders)
    if None in names or len(names) < 2:
        return None
    return tuple(sorted((name for name in names if name is not None), key=os.fsencode))


# Decoding


def decode(path: str | Path, channels: int) -> UInt8[Tensor, "c h w"]:
    """The picture a viewer shows: upright by its EXIF orientation, alpha on white, the first frame of several.

    16-bit grey is divided by 257, so that full scale stays full scale. Raises UnreadableImage with a one-line reason.
    """
    try:
        with Image.open(path) as image:
            image.load()  # by itself, so that what fails in `_upright` can only be metadata
            pixels = np.array(_to_8_bit(_upright(image)).convert("RGB" if channels == 3 else "L"))
    except UnreadableImage:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on malformed bytes
        raise UnreadableImage(_reason(error, path)) from error
    planes = pixels.reshape(*pixels.shape[:2], channels)
    return torch.from_numpy(planes).permute(2, 0, 1).contiguous()


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata is no reason to lose the picture
        return image
    return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """A mode that Pillow converts faithfully: its own conversions cut 16-bit grey off at 255 and ignore alpha."""
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage("32-bit pixels have no known range; save it with 8 or 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image


def _reason(error: Exception, path: str | Path) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "the file is empty" if os.path.getsize(path) == 0 else "not an image, or of a kind Pillow cannot read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# Setting the unreadable aside


def scan(source: Source, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> list[tuple[int, str]]:
    """Decode every image once; the numbers of those that cannot be, with the reason, in the source's order.

    workers: threads, at least one (Pillow decodes outside Python's lock). progress(done, total) is called now and then.
    """
    if isinstance(source, ArraySource):
        return []  # decoded already
    blocks = [range(start, min(start + 64, len(source))) for start in range(0, len(source), 64)]
    found: list[tuple[int, str]] = []
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for block, failures in zip(blocks, pool.map(lambda block: _failures(source, block), blocks), strict=True):
            found += failures
            if progress is not None:
                progress(block.stop, len(source))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt should not wait for a million images
    return found


def _failures(source: Source, block: range) -> list[tuple[int, str]]:
    failures = []
    for i in block:
        try:
            source.read(i)
        except UnreadableImage as error:
            failures.append((i, str(error)))
    return failures


def readable(source: Source, unreadable: Sequence[tuple[int, str]]) -> Source:
    """`source` without the images that `scan` found unreadable.

    Raises InputError if fewer than two images are left, or if more than half are unreadable: that is more than dirt.
    """
    if not unreadable:
        return source
    first, reason = unreadable[0]
    found = f"{len(unreadable)} of the {len(source)} images of {source.name} cannot be read"
    if 2 * len(unreadable) > len(source) or len(source) - len(unreadable) < 2:
        raise InputError(f"{found}, the first being {source.location(first)} ({reason}); check the files.")
    kept = torch.ones(len(source), dtype=torch.bool)
    kept[[i for i, _ in unreadable]] = False
    return take(source, kept.nonzero()[:, 0])
