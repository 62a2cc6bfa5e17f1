"""Hugging Face data sets: saved on a disk, in the hub's cache, or streamed from the hub.

The only file that knows the package `datasets`. Images are taken out as the bytes of their files and decoded like
those of any other source, so they have the same pixels as the same files in a folder.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere.data.decode import EncodedImage
from evensphere.data.encoded import Channels, EncodedSource, as_text
from evensphere.data.kinds import VALIDATION_NAMES
from evensphere.data.partition import split_by_class
from evensphere.data.source import Splits
from evensphere.data.stream import SHUFFLE_BUFFER, Sample, Stream
from evensphere.errors import InputError

_HUB = "hf://"
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
# what the parts of a data set are called, the usual name first
_USUAL = {"train": ("train",), "validation": VALIDATION_NAMES, "test": ("test",)}
_PIECES = 64  # that a saved data set is streamed in, at most


def hub(
    path: str | Path,
    config: str | None = None,
    revision: str | None = None,
    download: bool = False,
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    group_column: str | None = None,
    channels: Channels = "auto",
    bits: int = 8,
    seed: int = 0,
    streaming: bool = False,
    samples: int | None = None,
    shuffle_buffer: int = SHUFFLE_BUFFER,
) -> Splits:
    """A data set of the package `datasets`: a folder made by its `save_to_disk`, or hf://OWNER/NAME.

    config, revision: which of several, on the hub.
    download: whether the hub may be asked for it; otherwise it must be in this machine's cache.
    train, validation, test: what these splits are called; None looks for the usual names. With train and validation
        only, validation is the test set. A single split is divided by class, with `seed` (see `split_by_class`).
        A split with an image that has no label, or the label -1, counts as unlabelled.
    image_column, label_column, group_column: where images, classes and groups are. None takes the only column of the
        type Image, the only one of the type ClassLabel, and no groups.
    channels, bits: as for `folder`; a stream's images are RGB unless channels says otherwise.
    streaming: read the training split as a Stream, without fetching it first; there is nothing to evaluate with then.
    samples, shuffle_buffer: see Stream; samples=None takes the number that the data set tells.

    Raises InputError where the data set, a split or a column is not there, and for fewer than two images.
    """
    datasets = _package()
    name = str(path)
    loaded = _load(datasets, name, config, revision, download, streaming)
    use = _splits_by_use(name, list(loaded), {"train": train, "validation": validation, "test": test})
    training = loaded[use["train"]]
    image = _image_column(datasets, name, training.features, image_column)
    if streaming:
        pieces, known = _in_pieces(training)
        number = 3 if channels == "auto" else channels
        return Splits(HubStream(name, pieces, image, _epoch(name, samples or known), number, shuffle_buffer))
    columns: dict[str, Any] = {
        "image": image,
        "label": _label_column(datasets, name, training.features, label_column),
        "group": None if group_column is None else _check_column(name, training.features, group_column),
    }
    if len(training) < 2:
        raise InputError(f"{name} holds {len(training)} image(s); training compares images and needs at least two.")
    if len(use) == 1:
        return split_by_class(HubSource(name, training, **columns, channels=channels, bits=bits), seed)
    pretrain = HubSource(name, training, **columns, channels=channels, bits=bits, part=use.pop("train"))
    if pretrain.class_names is None:
        return Splits(pretrain)
    columns |= {"channels": pretrain.channels, "bits": bits, "class_names": pretrain.class_names}
    others = {part: HubSource(name, loaded[split], **columns, part=split) for part, split in use.items()}
    labelled = {part: source for part, source in others.items() if source.labels() is not None}
    if "test" not in labelled and "validation" in labelled:
        labelled["test"] = labelled.pop("validation")
    if not labelled:
        return Splits(pretrain)
    return Splits(pretrain, probe=pretrain, validation=labelled.get("validation"), test=labelled["test"])


class HubSource(EncodedSource):
    """The rows of one split.

    Images that all have file names are in the order of these, as in a folder: CLASS/NAME, or NAME without labels;
    others, and those whose names are not unique, in the order of the rows.

    dataset: of the package `datasets`. image, label, group: its columns.
    class_names: None finds them; if given, all labels must be among them.
    part: what the split is called, where there are several.
    """

    def __init__(
        self,
        name: str,
        dataset: Any,
        image: str,
        label: str | None = None,
        group: str | None = None,
        channels: Channels = "auto",
        class_names: Sequence[str] | None = None,
        part: str = "",
        bits: int = 8,
    ) -> None:
        classes = None if label is None or label not in dataset.features else _classes(dataset, label)
        if class_names is None and classes is not None and len(set(classes)) > 1:
            class_names = sorted(set(classes), key=os.fsencode)
        if class_names is None:
            classes = None
        self.rows, self._locations = _in_order(_file_names(dataset, image), classes, part, len(dataset))
        labels = None if classes is None else _labels(name, [classes[row] for row in self.rows], class_names or ())
        groups = None if group is None or group not in dataset.features else _groups(dataset, group)[self.rows]
        super().__init__(f"{name}/{part}" if part else name, channels, labels, class_names, groups, bits)
        self.dataset, self.image = _encoded(dataset, image), image

    def __len__(self) -> int:
        return len(self.rows)

    def open(self, i: int) -> EncodedImage:
        content = self.dataset[self.rows[i]][self.image]
        if content is None or (content["bytes"] is None and not content["path"]):
            raise OSError("the row holds no image")
        return content["path"] if content["bytes"] is None else io.BytesIO(content["bytes"])

    def location(self, i: int) -> str:
        return self._locations[i]


class HubStream(Stream):
    """The images of a split, piece by piece. pieces: an IterableDataset; image: its column."""

    def __init__(self, name: str, pieces: Any, image: str, samples: int, channels: int, shuffle_buffer: int) -> None:
        super().__init__(name, [str(k) for k in range(pieces.num_shards)], samples, channels, shuffle_buffer)
        self.pieces, self.image = _encoded(pieces, image), image

    def read_shard(self, k: int) -> Iterator[Sample]:
        rows = iter(self.pieces.shard(num_shards=len(self.shards), index=k))
        for number in count():
            try:
                row = next(rows, None)
                data = b"" if row is None else _bytes_of(row[self.image])
            except Exception as error:  # whatever reads the web raises
                raise InputError(
                    f"{self.name} cannot be read ({_reason(error)}); once it can, go on with --resume."
                ) from error
            if row is None:
                return
            yield Sample(f"{k}/{number}", data)


def _bytes_of(content: Mapping[str, Any] | None) -> bytes:
    """An encoded image; none at all for an empty row. Some rows only name a file, on the hub mostly."""
    if content is None or (content["bytes"] is None and not content["path"]):
        return b""
    if content["bytes"] is None:
        import fsspec

        with fsspec.open(content["path"], "rb") as file:
            return bytes(file.read())
    return bytes(content["bytes"])


# --- getting it -------------------------------------------------------------------------------------------------------


def _package() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(
            "Hugging Face data sets need the package datasets; pip install 'evensphere[hub]' brings it."
        ) from error
    return datasets


def _load(
    datasets: Any, name: str, config: str | None, revision: str | None, download: bool, streaming: bool
) -> dict[str, Any]:
    """The splits by name; "train" is the name of one that has none. No code of the data set's own is ever run."""
    try:
        if not name.startswith(_HUB):
            loaded = datasets.load_from_disk(str(Path(name).expanduser()))
        else:
            repository = name.removeprefix(_HUB).removeprefix("datasets/")
            if not _REPOSITORY.fullmatch(repository):
                raise InputError(f"{name} was given; a data set on the hub is called hf://OWNER/NAME.")
            if revision is not None and not (download or streaming):
                raise InputError(
                    f"data.revision={revision} was given, and this machine's cache does not tell revisions apart; add "
                    "--set data.download=true, which fetches nothing that is there already."
                )
            if not (download or streaming):
                loaded = _cached(repository, config)
            else:
                loaded = datasets.load_dataset(repository, config, revision=revision, streaming=streaming)
    except InputError:
        raise
    except Exception as error:  # the package raises what its many readers raise
        raise InputError(f"The data set {name} cannot be loaded ({_reason(error)}).") from error
    return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}


def _cached(repository: str, config: str | None) -> Any:
    """What an earlier download left on this machine; nobody is asked over the web."""
    from datasets.packaged_modules.cache.cache import Cache

    try:
        builder = Cache(
            dataset_name=repository.split("/")[-1], repo_id=repository, config_name=config, version="auto", hash="auto"
        )
    except Exception as error:
        raise InputError(
            f"The data set hf://{repository} is not in this machine's cache ({_reason(error)}); "
            "fetch it with --set data.download=true."
        ) from error
    return builder.as_dataset()


def _in_pieces(dataset: Any) -> tuple[Any, int | None]:
    """(the data set as a stream, its number of images where that is known)."""
    if hasattr(dataset, "to_iterable_dataset"):
        return dataset.to_iterable_dataset(num_shards=min(_PIECES, len(dataset))), len(dataset)
    split = (dataset.info.splits or {}).get(str(dataset.split))
    return dataset, getattr(split, "num_examples", None)


def _epoch(name: str, samples: int | None) -> int:
    if samples is None:
        raise InputError(f"{name} does not tell how many images it has; say how many make an epoch: data.samples=N.")
    return samples


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# --- finding one's way in it ------------------------------------------------------------------------------------------


def _splits_by_use(name: str, present: Sequence[str], asked: Mapping[str, str | None]) -> dict[str, str]:
    """{"train": the split to train on, "test": ..., "validation": ...}; only "train" if there is nothing else."""
    for part, split in asked.items():
        if split is not None and split not in present:
            raise InputError(f"{name} has no split '{split}' for data.{part}; it has {', '.join(present)}.")
    found = {
        part: split or next((usual for usual in _USUAL[part] if usual in present), None)
        for part, split in asked.items()
    }
    if found["train"] is None and len(present) == 1:
        found["train"] = present[0]
    if found["train"] is None:
        raise InputError(f"{name} has the splits {', '.join(present)}; say which to train on: data.train=NAME.")
    return {
        part: split
        for part, split in found.items()
        if split is not None and (part == "train" or split != found["train"])
    }


def _image_column(datasets: Any, name: str, features: Mapping[str, Any] | None, asked: str | None) -> str:
    if features is None:
        raise InputError(f"{name} does not tell what its columns are; download it instead of streaming it.")
    if asked is not None:
        return _check_column(name, features, asked)
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if len(images) != 1:
        what = f"several columns of images ({', '.join(images)})" if images else "no column of the type Image"
        raise InputError(f"{name} has {what}; say which of {', '.join(features)} to take: data.image_column=NAME.")
    return images[0]


def _label_column(datasets: Any, name: str, features: Mapping[str, Any], asked: str | None) -> str | None:
    """The column of classes; None where it is not clear which one that would be."""
    if asked is not None:
        return _check_column(name, features, asked)
    classes = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    return classes[0] if len(classes) == 1 else None


def _check_column(name: str, features: Mapping[str, Any], column: str) -> str:
    if column not in features:
        raise InputError(f"{name} has no column '{column}'; it has {', '.join(features)}.")
    return column


def _encoded(dataset: Any, image: str) -> Any:
    """The images alone, as {"bytes": ..., "path": ...}."""
    datasets = _package()
    try:
        return dataset.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"The column {image} does not hold images ({_reason(error)}); choose another.") from error


def _file_names(dataset: Any, image: str) -> list[str] | None:
    """What each image's file was called, without its folder; None where some have no name. No pixel is touched."""
    column = _encoded(dataset, image).data.column(0)
    names = [os.path.basename(path or "") for chunk in column.chunks for path in chunk.field("path").to_pylist()]
    return names if all(names) else None


def _classes(dataset: Any, label: str) -> list[str] | None:
    """Each row's class by name; None where a row has none."""
    feature, values = dataset.features[label], dataset.data.column(label).to_pylist()
    if any(value is None or value == -1 for value in values):
        return None
    names = getattr(feature, "names", None)  # of a ClassLabel, which holds numbers
    return [str(value) if names is None else names[value] for value in values]


def _in_order(
    files: Sequence[str] | None, classes: Sequence[str] | None, part: str, total: int
) -> tuple[list[int], list[str]]:
    """(rows, their locations) in the source's order."""
    if files is not None:
        prefix = f"{part}/" if part else ""
        folders = [f"{name}/" for name in classes] if classes is not None else [""] * total
        paths = [f"{prefix}{folder}{file}" for folder, file in zip(folders, files, strict=True)]
        if len(set(paths)) == total:
            rows = sorted(range(total), key=lambda row: os.fsencode(paths[row]))
            return rows, [as_text(paths[row]) for row in rows]
    return list(range(total)), [f"{part or 'row'}[{row}]" for row in range(total)]


def _labels(name: str, classes: Sequence[str], class_names: Sequence[str]) -> Int64[Tensor, " n"]:
    number = {known: c for c, known in enumerate(class_names)}
    for one in classes:
        if one not in number:
            raise InputError(
                f"{name} has an image of class '{one}', but training knows {len(number)} classes "
                f"('{class_names[0]}' ... '{class_names[-1]}'); the splits must agree on their classes."
            )
    return torch.tensor([number[one] for one in classes], dtype=torch.int64)


def _groups(dataset: Any, column: str) -> Int64[Tensor, " n"]:
    """A number for each value of a column; a row without one is a group of its own."""
    values = dataset.data.column(column).to_pylist()
    number: dict[str | int, int] = {}
    return torch.tensor(
        [number.setdefault(row if value is None else repr(value), len(number)) for row, value in enumerate(values)],
        dtype=torch.int64,
    )
