"""What `evensphere split` leaves behind: a list file for each part, and a card that says how they came about.

    OUT/train.txt, probe.txt, ...   an image in each line: its location and its label's number ("cat/001.jpg 3")
    OUT/card.json                   the source, what was wanted, and each list's counts and checksum
    OUT/counts.png                  images of each class in each part

The lists are for anybody's trainer. The card is a source of its own ("split"): it gives the same parts again, and
refuses lists that were changed since.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere import __version__
from evensphere.data import SOURCES
from evensphere.data.kinds import CARD
from evensphere.data.partition import Division, divide
from evensphere.data.source import Source, Splits, take
from evensphere.disk import DiskError, atomic_write, make_folder, remove
from evensphere.errors import InputError
from evensphere.untrusted import IMAGES, RESULTS, read_bytes, read_json

COUNTS = "counts.png"
# 2: every path is relative to the card. 1: that of the collection alone, the others are as they were typed
_FORMAT = 2
_OFFICIAL = "official"  # a part that the source itself holds apart


def whole_of(splits: Splits) -> Source:
    """The labelled images that may be divided: everything but the parts that the source itself holds apart.

    Raises InputError for a source without labels.
    """
    pool = max(splits.pretrain, splits.probe or splits.pretrain, key=len)
    if pool.labels() is None or pool.class_names is None:
        raise InputError(
            f"{pool.name} has no labels, and a split is made by class; give class folders, or a list or table with "
            "labels."
        )
    return pool


def held_apart(splits: Splits, pool: Source) -> dict[str, Source]:
    """The source's own validation and test images, where they are not among the pool's."""
    inside = {pool.location(i) for i in range(len(pool))}
    parts = {"validation": splits.validation, "test": splits.test}
    return {name: part for name, part in parts.items() if part is not None and part.location(0) not in inside}


def write_split(
    source: str, options: Mapping[str, Any], splits: Splits, division: Division, out: Path
) -> dict[str, Any]:
    """Divide a collection and write its lists, its card and its picture; returns the card.

    source, options: the name in SOURCES and the keywords that `splits` was made with; paths in the card are relative
        to it. out: a new or empty folder.
    Raises InputError where the source has no labels, a class has too few images, or `out` cannot be used.
    """
    if source == "split":
        raise InputError(f"{options.get('path')} is a split already; divide the collection that it was made of.")
    pool = whole_of(splits)
    labels = pool.labels()
    assert labels is not None
    assert pool.class_names is not None
    parts = divide(labels, len(pool.class_names), division, pool.groups())
    kept = {name: part for name, part in held_apart(splits, pool).items() if name not in parts}
    _create(out)
    there = out.resolve()
    # the card first: without it the folder is no split, whatever else cannot be removed
    with _all_or_none([out / CARD, *(out / f"{name}.txt" for name in parts), out / COUNTS]):
        lists = {name: _write_list(out / f"{name}.txt", pool, labels, numbers) for name, numbers in parts.items()}
        moved = _moved(source, options, lambda path: os.path.relpath(Path(path).expanduser(), there))
        card = {
            "format": _FORMAT,
            "made_by": f"evensphere {__version__}",
            "source": {"name": source, "options": moved},
            "division": asdict(division),
            "classes": list(pool.class_names),
            "group_rule": splits.group_rule,
            "lists": lists,
            _OFFICIAL: {name: len(part) for name, part in kept.items()},
        }
        draw_counts(card, out / COUNTS)
        atomic_write(out / CARD, json.dumps(card, indent=2) + "\n")  # last: from here on the folder is a split
    return card


@contextmanager
def _all_or_none(files: Sequence[Path]) -> Iterator[None]:
    """What is written inside goes again if not all of it was, so that the same command finds an empty folder."""
    try:
        yield
    except BaseException:  # a full disk, an interrupt
        for file in files:
            with suppress(DiskError):
                remove(file)
        raise


def _create(out: Path) -> None:
    make_folder(out)
    try:
        taken = next((one.name for one in out.iterdir() if one.name in (CARD, COUNTS) or one.suffix == ".txt"), None)
    except OSError as error:
        raise InputError(f"Cannot write a split to {out}: {error.strerror}; choose another --out.") from error
    if taken is not None:
        raise InputError(f"{out} already holds a split, or files like those of one ({taken}); choose another --out.")


def _write_list(file: Path, pool: Source, labels: Int64[Tensor, " n"], numbers: Int64[Tensor, " m"]) -> dict[str, Any]:
    assert pool.class_names is not None
    lines = [f"{pool.location(i)} {int(labels[i])}\n" for i in numbers.tolist()]
    text = "".join(lines)
    atomic_write(file, text)
    return {
        "file": file.name,
        "images": len(lines),
        "counts": torch.bincount(labels[numbers], minlength=len(pool.class_names)).tolist(),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def _moved(source: str, options: Mapping[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    """The options of a source, every path in them moved."""
    hints = get_type_hints(_function(source))
    return {name: _moved_paths(value, move) if Path in _flat(hints[name]) else value for name, value in options.items()}


def _moved_paths(paths: Any, move: Callable[[str], str]) -> Any:
    if isinstance(paths, list | tuple):
        return [_moved_paths(path, move) for path in paths]
    return paths if paths is None or "://" in str(paths) else move(str(paths))


def _flat(hint: Any) -> set[Any]:
    """A type and the types that it is made of."""
    return {hint}.union(*map(_flat, get_args(hint)))


def _function(source: str) -> Callable[..., Splits]:
    module, _, function = SOURCES[source].partition(":")
    found: Callable[..., Splits] = getattr(import_module(module), function)
    return found


# --- the card as a source ---------------------------------------------------------------------------------------------


def split(path: str | Path) -> Splits:
    """The parts that `evensphere split` made: pretrain is its train list, probe the pool that it was chosen from.

    path: the split's card.json, or its folder. The source is where the card says, relative to the card.
    Raises InputError for a card that cannot be read, a list that was changed, and images that are gone.
    """
    file = Path(path).expanduser()
    file = file / CARD if file.is_dir() else file
    card = read_card(file)
    name, options = card["source"]["name"], card["source"]["options"]
    if name not in SOURCES or name == "split":
        raise InputError(f"{file} divides a source called '{name}', which is not known; make the split again.")
    try:
        splits = _function(name)(**_found_again(name, options, file.parent, card["format"]))
    except (TypeError, KeyError, AttributeError) as error:  # of options that are none, or not what they should be
        raise InputError(
            f"{file} names options that a {name} does not take ({error}); make the split again."
        ) from error
    pool = whole_of(splits)
    place = {pool.location(i): i for i in range(len(pool))}
    parts = {part: _listed(file.parent, entry, pool, place) for part, entry in card["lists"].items()}
    official = held_apart(splits, pool)
    return Splits(
        pretrain=parts["train"],
        probe=parts["probe"],
        validation=parts.get("validation", official.get("validation")),
        test=parts.get("test", official.get("test")),
        group_rule=card["group_rule"],
    )


def _found_again(source: str, options: Mapping[str, Any], folder: Path, written_as: int) -> dict[str, Any]:
    """The options in a card in `folder`, their paths as they are found from here. written_as: the card's format."""
    if written_as == 1:
        collection = {"path": options["path"]} if "path" in options else {}
        return {**options, **_moved(source, collection, lambda path: os.path.normpath(folder / path))}
    there = folder.resolve()
    return _moved(source, options, lambda path: os.path.normpath(there / path))


def read_card(file: Path) -> dict[str, Any]:
    """A card.json, checked to be one. Raises InputError."""
    try:
        card = read_json(file, RESULTS)
        known = card["format"] in range(1, _FORMAT + 1)
        well_formed = known and {"train", "probe"} <= set(card["lists"]) and _typed(card)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is no card of `evensphere split` ({error}); give the folder that it wrote."
        ) from error
    if not well_formed:
        raise InputError(f"{file} is no card that this version of `evensphere split` wrote; make the split again.")
    assert isinstance(card, dict)
    return card


def _typed(card: Mapping[str, Any]) -> bool:
    """Whether what `split` reads of a card is of the kind that it is written as."""
    source, lists = card["source"], card["lists"]
    texts = [
        source["name"],
        card["group_rule"],
        *(entry[key] for entry in lists.values() for key in ("file", "sha256")),
    ]
    return all(isinstance(text, str) for text in texts) and isinstance(source["options"], dict)


def _listed(folder: Path, entry: Mapping[str, Any], pool: Source, place: Mapping[str, int]) -> Source:
    file = folder / Path(entry["file"]).name
    try:
        content = read_bytes(file, IMAGES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read ({reason}); make the split again.") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise InputError(f"{file} was changed since the split was made; make the split again.")
    locations = [line.rpartition(" ")[0] for line in content.decode().splitlines()]
    absent = [location for location in locations if location not in place]
    if absent:
        raise InputError(
            f"{len(absent)} of the {len(locations)} images of {file} are not in {pool.name} any more, the first being "
            f"{absent[0]}; put them back, or make the split again."
        )
    return take(pool, torch.tensor([place[location] for location in locations], dtype=torch.int64))


# --- its picture ------------------------------------------------------------------------------------------------------


_LINES = {"probe": "#888888", "validation": "#e08214", "test": "#1b7837"}


def draw_counts(card: Mapping[str, Any], file: Path) -> None:
    """Images of each class in training, on a logarithmic axis, most frequent class first; lines for the probe's set and
    the parts held out. Few-shot probes have the same number of every class and need no picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    train = card["lists"]["train"]["counts"]
    order = sorted(range(len(train)), key=lambda c: -train[c])
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, entry in card["lists"].items():
        counts = [entry["counts"][c] for c in order]
        label = f"{name}: {entry['images']:,} images"
        if name == "train":
            axes.bar(range(len(order)), counts, width=1.0, color="#2a6fbb", label=label)
        elif not name.startswith("probe-"):
            axes.step(range(len(order)), counts, where="mid", linewidth=2, color=_LINES[name], label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.set_ylabel("images of the class")
    axes.set_xlabel("classes, most frequent in training first")
    axes.set_title(_title(card, train), fontsize=11)
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    atomic_write(file, png.getvalue())


def _title(card: Mapping[str, Any], train: Sequence[int]) -> str:
    smallest = min(count for count in train if count > 0)
    return (
        f"{len(train)} classes, {max(train):,} to {smallest:,} training images (imbalance {max(train) / smallest:.0f})"
    )
