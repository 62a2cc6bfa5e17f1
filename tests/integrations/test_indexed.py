"""WithIndex: the number of each item, whatever the data set and whatever its items look like."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset as HuggingFace
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, Subset, TensorDataset

import evensphere
from evensphere import WithIndex
from evensphere.errors import InputError


class Named(NamedTuple):
    image: int
    label: int


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((7, "cat"), (7, "cat", 1)),
        (Named(7, 0), (7, 0, 1)),
        ([7, 8], ([7, 8], 1)),  # two views of one image, not a row of fields
        (7, (7, 1)),
        ({"image": 7}, {"image": 7, "index": 1}),
    ],
)
def test_where_the_number_goes(item: Any, expected: Any) -> None:
    dataset = WithIndex([item, item, item])
    assert dataset[1] == expected
    assert dataset.__getitems__([1]) == [expected]
    assert len(dataset) == 3


def test_a_number_from_the_end_is_one_from_the_beginning() -> None:
    dataset = WithIndex([10, 11, 12])
    assert dataset[-1] == (12, 2)
    assert dataset[torch.tensor(1)] == (11, 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_hands_it_over_as_whole_numbers(workers: int) -> None:
    images = torch.arange(10) * 3
    dataset = WithIndex(TensorDataset(images, torch.zeros(10)))
    seen: dict[int, int] = {}
    for batch in DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers):
        assert batch[-1].dtype == torch.int64
        seen |= dict(zip(batch[-1].tolist(), batch[0].tolist(), strict=True))
    assert seen == {i: 3 * i for i in range(10)}


def test_parts_of_it_and_it_of_parts() -> None:
    """Whoever wraps a part numbers the part; whoever takes a part of the wrapped keeps the numbers of the whole."""
    images: Any = list(range(100, 110))
    assert WithIndex(Subset(images, [3, 5]))[1] == (105, 1)
    assert Subset(WithIndex(images), [3, 5])[1] == (105, 5)
    assert WithIndex(ConcatDataset([images[:4], images[4:]]))[7] == (107, 7)


def test_data_sets_of_hugging_face_are_read_in_batches() -> None:
    dataset = WithIndex(HuggingFace.from_dict({"x": [5, 6, 7]}))
    assert dataset[2] == {"x": 7, "index": 2}
    batch = next(iter(DataLoader(dataset, batch_size=2, sampler=[2, 0])))
    assert {name: values.tolist() for name, values in batch.items()} == {"x": [7, 5], "index": [2, 0]}
    with pytest.raises(InputError, match="'index' of their own"):
        WithIndex(HuggingFace.from_dict({"index": [5]}))[0]


def test_what_the_data_set_has_it_has_too() -> None:
    class Classes(list[int]):
        classes = ("cat", "dog")

    dataset = WithIndex(Classes([1, 2]))
    assert dataset.classes == ("cat", "dog")
    for copied in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(WithIndex([1, 2])))):
        assert copied[1] == (2, 1)
    with pytest.raises(AttributeError):
        dataset.nothing  # noqa: B018


def test_a_stream_is_told_what_to_do() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            yield torch.zeros(1)

    for stream in (Stream(), iter([1, 2])):
        with pytest.raises(InputError, match="population='streaming'"):
            WithIndex(stream)


def test_it_is_a_public_name() -> None:
    assert {"WithIndex", "Encoder"} <= set(evensphere.__all__)
