"""A look into a collection: how many images of what kind and size, which are broken, which look alike, and how skewed
the classes are, where there are any. Every image is decoded once; nothing is printed or written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from numpy import ndarray
from PIL import Image
from torch import Tensor

from evensphere.data.duplicates import DISTANCE, Fingerprints
from evensphere.data.encoded import EncodedSource
from evensphere.data.scan import scan
from evensphere.data.source import Source, Splits, Subset, take
from evensphere.ops.draw import permutation

SHORT_SIDES = (32, 64, 128, 256, 512, 1024, 2048)  # pixels; ends of the histogram's intervals


class Sizes(NamedTuple):
    """(width, height) of readable images: the medians of both, and those of the images of fewest and most pixels.

    short_sides: images whose short side is at most 32, 64, ... 2048 pixels (and above the limit before), or larger.
    decoded_bytes: of all, as they are read.
    """

    median: tuple[int, int]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    short_sides: tuple[int, ...]
    decoded_bytes: int


class Classes(NamedTuple):
    """names, counts: of the readable images to pretrain on, in label order. rule: see `Splits.group_rule`."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    rule: str

    @property
    def imbalance(self) -> float:
        """Largest class over the smallest that has an image; 1 where none has."""
        present = [count for count in self.counts if count > 0]
        return max(present) / min(present) if present else 1.0


@dataclass(frozen=True)
class Inspection:
    """What was found.

    source: every image of the collection once, one part after another; images are numbered by their place in it.
    parts: images of each part, unreadable ones included. An image in several parts belongs to the first.
    readable: the numbers of those that can be read. broken: the locations of the others, and of what cannot be
        listed, with the reason.
    formats, modes: of the readable files, in Pillow's words; empty for a collection that is no files.
    bursts: groups of near-duplicates, two images or more, largest first. distance: within how many bits (see
        data/duplicates.py). crossing: how many of the groups have images in several parts.
    own_groups: how many groups the collection itself divides the images to pretrain on into; None if it does not.
    """

    source: Joined
    parts: dict[str, int]
    readable: Int64[Tensor, " readable"]
    broken: list[tuple[str, str]]
    formats: dict[str, int]
    modes: dict[str, int]
    sizes: Sizes | None
    classes: Classes | None
    bursts: list[list[int]]
    crossing: int
    own_groups: int | None
    distance: int = DISTANCE

    def to_json(self) -> dict[str, Any]:
        """The same as plain values, with locations in place of numbers."""
        sizes, classes = self.sizes, self.classes
        limits = [*SHORT_SIDES, None]
        return {
            "name": self.source.name,
            "images": len(self.source),
            "readable": len(self.readable),
            "parts": self.parts,
            "broken": [{"path": path, "reason": reason} for path, reason in self.broken],
            "formats": self.formats,
            "modes": self.modes,
            "channels": self.source.channels,
            "sizes": sizes
            and {
                **{name: list(getattr(sizes, name)) for name in ("median", "smallest", "largest")},
                "short_sides": [
                    {"up_to": up_to, "images": images} for up_to, images in zip(limits, sizes.short_sides, strict=True)
                ],
                "decoded_bytes": sizes.decoded_bytes,
            },
            "classes": classes
            and {
                "names": list(classes.names),
                "counts": list(classes.counts),
                "imbalance": round(classes.imbalance, 4),
                "rule": classes.rule,
            },
            "near_duplicates": {
                "distance": self.distance,
                "images": sum(map(len, self.bursts)),
                "groups": [[self.source.location(i) for i in burst] for burst in self.bursts],
                "crossing_parts": self.crossing,
                "own_groups": self.own_groups,
            },
        }


def inspect(
    splits: Splits,
    name: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at every image of a collection. name: what to call it, if not like its images to pretrain on. workers:
    threads. progress(done, total) is called now and then."""
    parts = _parts(splits)
    source = Joined(list(parts.values()), name or splits.pretrain.name)
    look = _Look(source)
    unreadable = scan(source, workers, progress, look.see)
    readable = torch.from_numpy(np.flatnonzero(look.fingerprints.seen))
    bursts = _bursts(look.fingerprints.groups(), readable)
    groups = splits.pretrain.groups()
    return Inspection(
        source=source,
        parts={name: len(part) for name, part in parts.items()},
        readable=readable,
        broken=[*splits.pretrain.unlisted, *((source.location(i), reason) for i, reason in unreadable)],
        formats=_counted(look.formats),
        modes=_counted(look.modes),
        sizes=_sizes(look.shapes[readable.numpy()], look.bytes_per_pixel),
        classes=_classes(splits, look.fingerprints.seen),
        bursts=bursts,
        crossing=sum(len({source.part_of(i) for i in burst}) > 1 for burst in bursts),
        own_groups=None if groups is None else len(groups.unique()),
    )


def sample(inspection: Inspection, number: int = 64) -> list[int]:
    """Some readable images, always the same ones of a collection, in its order."""
    readable = inspection.readable
    chosen = permutation(0, "inspection", 0, len(readable))[:number] if len(readable) else readable
    return sorted(readable[chosen].tolist())


# --- every image once -------------------------------------------------------------------------------------------------


class Joined(Source):
    """Several sources, one after another. Without labels: they need not mean the same."""

    def __init__(self, sources: Sequence[Source], name: str) -> None:
        self.name, self.channels, self.image_size, self.class_names = name, sources[0].channels, None, None
        self.sources = list(sources)
        self.ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def part_of(self, i: int) -> int:
        return int(np.searchsorted(self.ends, i, "right"))

    def within(self, i: int) -> tuple[Source, int]:
        """The source that image i is of, and its number there."""
        part = self.part_of(i)
        return self.sources[part], i - int(self.ends[part]) + len(self.sources[part])

    def read(self, i: int) -> Shaped[Tensor, "c h w"]:
        source, number = self.within(i)
        return source.read(number)

    def location(self, i: int) -> str:
        source, number = self.within(i)
        return source.location(number)

    def labels(self) -> None:
        return None


def _parts(splits: Splits) -> dict[str, Source]:
    """The parts of a collection, each without what was in those before it."""
    parts, known = {"pretrain": splits.pretrain}, set(_locations(splits.pretrain))
    for name in ("probe", "validation", "test"):
        part: Source | None = getattr(splits, name)
        if part is None or part is splits.pretrain:
            continue
        locations = _locations(part)
        new = [i for i, location in enumerate(locations) if location not in known]
        if new:
            parts[name] = part if len(new) == len(part) else take(part, torch.tensor(new))
            known |= set(locations)
    return parts


def _locations(source: Source) -> list[str]:
    return [source.location(i) for i in range(len(source))]


# --- what is noted of each image --------------------------------------------------------------------------------------


class _Look:
    """What `scan` shows of each image that can be read; any thread may call `see`.

    shapes: (height, width) [N, 2]. bytes_per_pixel: of the last one seen.
    """

    def __init__(self, source: Joined) -> None:
        self.source = source
        self.fingerprints = Fingerprints(len(source))
        self.shapes = np.zeros((len(source), 2), dtype=np.int64)
        self.formats: list[str] = []
        self.modes: list[str] = []
        self.bytes_per_pixel = 1

    def see(self, i: int, image: Shaped[Tensor, "c h w"]) -> None:
        header = _header(*self.source.within(i))
        if header is not None:
            self.formats.append(header[0])
            self.modes.append(header[1])
        self.shapes[i] = image.shape[1:]
        self.bytes_per_pixel = image.element_size() * image.shape[0]
        self.fingerprints.see(i, image)


def _header(source: Source, i: int) -> tuple[str, str] | None:
    """(format, mode) of an image file in Pillow's words; a file that only other libraries read is called by its ending.
    None where there are no files."""
    while isinstance(source, Subset):
        i, source = int(source.indices[i]), source.source
    if not isinstance(source, EncodedSource):
        return None
    try:
        with Image.open(source.open(i)) as image:
            return image.format or "?", image.mode
    except Exception:  # it was read a moment ago, so it is no broken file
        return source.location(i).rpartition(".")[2].upper(), "?"


def _counted(words: list[str]) -> dict[str, int]:
    """Most frequent first; alphabetical among equals, whatever the order of the threads was."""
    return dict(sorted(Counter(words).items(), key=lambda item: (-item[1], item[0])))


def _sizes(shapes: Int64[ndarray, "n 2"], bytes_per_pixel: int) -> Sizes | None:
    if len(shapes) == 0:
        return None
    pixels = shapes.prod(1)
    short = np.searchsorted(SHORT_SIDES, shapes.min(1), "left")

    def size(height_and_width: ndarray) -> tuple[int, int]:
        return int(height_and_width[1]), int(height_and_width[0])

    return Sizes(
        median=size(np.median(shapes, axis=0)),
        smallest=size(shapes[pixels.argmin()]),
        largest=size(shapes[pixels.argmax()]),
        short_sides=tuple(np.bincount(short, minlength=len(SHORT_SIDES) + 1).tolist()),
        decoded_bytes=int(pixels.sum()) * bytes_per_pixel,
    )


def _classes(splits: Splits, seen: ndarray) -> Classes | None:
    labels, names = splits.pretrain.labels(), splits.pretrain.class_names
    if labels is None or names is None:
        return None
    readable = labels[torch.from_numpy(seen[: len(labels)])]
    counts = torch.bincount(readable, minlength=len(names)).tolist()
    return Classes(names, tuple(counts), splits.group_rule)


def _bursts(groups: Int64[Tensor, " readable"], readable: Int64[Tensor, " readable"]) -> list[list[int]]:
    order = torch.argsort(groups, stable=True)
    sizes = torch.bincount(groups).tolist()
    found = [part.tolist() for part in readable[order].split(sizes) if len(part) > 1]
    return sorted(found, key=lambda burst: (-len(burst), burst[0]))
