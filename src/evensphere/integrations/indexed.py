"""Any map-style data set, with the number of each item as its last part: what exact population statistics go by."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any, SupportsIndex

from torch.utils.data import Dataset, IterableDataset

from evensphere.errors import InputError


class WithIndex(Dataset[Any]):
    """A data set whose items also say which item they are.

    A tuple gets the number as its last part, a dictionary as its entry "index", anything else becomes (item, number).
    So what reads `batch[0]` goes on as before, and `batch[-1]` is the index. Other attributes are the data set's own.

    dataset: anything with a length and numbered items: of torch, torchvision, Lightly, Hugging Face, a list ...
    Raises InputError for a data set that only comes in a row, and for dictionaries that have an "index" already.

    >>> WithIndex([("picture", "label"), ("another", "label")])[1]
    ('another', 'label', 1)
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, IterableDataset) or not all(
            hasattr(dataset, method) for method in ("__getitem__", "__len__")
        ):
            raise InputError(
                f"A {type(dataset).__name__} was given to WithIndex, whose items have no numbers; "
                "leave WithIndex out, and make the harmonizer with population='streaming', which needs no index."
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: SupportsIndex) -> Any:
        i = index(i)  # of torch's and numpy's whole numbers too
        return _numbered(self.dataset[i], i % len(self))  # -1 is the last one

    def __getitems__(self, numbers: list[SupportsIndex]) -> list[Any]:
        """Many items, which some data sets read faster than one by one; a DataLoader asks for them so."""
        whole = [index(i) for i in numbers]
        together = getattr(self.dataset, "__getitems__", None)
        items = together(whole) if callable(together) else [self.dataset[i] for i in whole]
        return [_numbered(item, i % len(self)) for item, i in zip(items, whole, strict=True)]

    def __getattr__(self, name: str) -> Any:
        if name == "dataset" or name.startswith("__"):  # asked of a copy that is being made, which has none yet
            raise AttributeError(name)
        return getattr(self.dataset, name)


def _numbered(item: Any, number: int) -> Any:
    if isinstance(item, tuple):
        return (*item, number)
    if isinstance(item, Mapping):
        if "index" in item:
            raise InputError("The items of this data set have an 'index' of their own; use it, without WithIndex.")
        return {**item, "index": number}
    return item, number
