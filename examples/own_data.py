"""Data of your own, without touching the package: a function that returns Splits is a data set.

evensphere train folder --set data=own_data:arrays --set data.path=pictures.npz
evensphere train folder --set data=own_data:dataset

From Python: train(replace(get_recipe("folder"), data=Part("own_data:arrays", path="pictures.npz")), "runs/mine"). The
function is named by where it can be imported from, so that the run can be resumed and, with trust=True, evaluated (run
folders may come from anybody, and what one names is run); "__main__:arrays" will do in a script.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from evensphere.data.partition import split_by_class
from evensphere.data.source import ArraySource, Source, Splits


def arrays(path: str, seed: int = 0) -> Splits:
    """Images that a program holds: uint8 [N, C, H, W], and labels, if there are any, for evaluation alone."""
    held = np.load(path)
    images = torch.from_numpy(held["pictures"]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(held["kinds"])
    names = [f"kind {c}" for c in range(int(labels.max()) + 1)]
    return split_by_class(ArraySource("pictures", images, labels, names), seed)


def dataset() -> Splits:
    """Any map-style torch Dataset: training images from one, and nothing to evaluate with."""
    digits = torch.from_numpy(load_digits().images[:100] * 15).to(torch.uint8)
    return Splits(DatasetSource("digits", TensorDataset(digits[:, None].repeat(1, 3, 4, 4))))


class DatasetSource(Source):
    """Images that are read one by one, by the loader's workers: item i of the data set begins with image i, uint8
    [3, H, W] of any size. Raise `evensphere.data.source.UnreadableImage` for one that is to be skipped."""

    def __init__(self, name: str, dataset: Dataset[Any]) -> None:
        self.name, self.channels, self.image_size, self.class_names = name, 3, None, None
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def read(self, i: int) -> Tensor:
        image: Tensor = self.dataset[i][0]
        return image

    def location(self, i: int) -> str:
        return f"{self.name}[{i}]"

    def labels(self) -> None:
        return None
