"""What the examples of other libraries share: long-tailed digits as a torch Dataset, views, a network, a score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from evensphere.data.digits import digits
from evensphere.engine.evaluate import evaluate_encoder
from evensphere.nn.backbone import resnet_small
from evensphere.recipes.part import Part, build

torch.manual_seed(0)
SPLITS = digits(imbalance=20)  # 114 images of the most common digit, 6 of the rarest; the test set is balanced
VIEWS = build("views", Part("digits", size=8), seed=0)  # how the encoder sees an image in evaluation


def crops(size: int, *scale: float) -> v2.Compose:
    """Random views of one image at a time."""
    pixels = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(VIEWS.mean, VIEWS.std)]
    return v2.Compose([v2.RandomResizedCrop(size, scale=scale, antialias=True), *pixels])


random_view, local_view = crops(8, 0.5, 1.0), crops(4, 0.2, 0.5)


class LongTailedDigits(Dataset[tuple[Any, int]]):
    """(image, class) like any data set of torchvision's; no loss below looks at the class."""

    def __init__(self, transform: Callable[[Tensor], Any] | None = None) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return len(SPLITS.pretrain)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image, labels = SPLITS.pretrain.read(i), SPLITS.pretrain.labels()
        return (image if self.transform is None else self.transform(image)), int(labels[i])


def encoder() -> nn.Module:
    """A small ResNet with 64 features."""
    return resnet_small(in_channels=1, width=32, stages=2)


def accuracy(trained: nn.Module) -> dict[str, float]:
    """kNN accuracy in percent: of all classes, and of many, medium and few images in training."""
    scores = evaluate_encoder(trained, SPLITS, VIEWS, ["knn"]).results["knn"]
    return {group: round(scores[group], 1) for group in ("average", "many", "medium", "few")}
