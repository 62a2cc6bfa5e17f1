"""What all subjects have in common: pixels, network, batch, policy of the views, optimiser."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from evensphere.recipes.network import build_encoder
from evensphere.recipes.recipe import Recipe, get_recipe

RECIPES = {"resnet18": "cifar100-lt", "resnet-small": "cifar100-lt-small"}
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}

# the GH paper's policy for CIFAR (section 3); evensphere's defaults
SIZE, SCALE, JITTER, JITTER_PROBABILITY, GRAY = 32, (0.1, 1.0), (0.4, 0.4, 0.4, 0.1), 0.8, 0.2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
TEMPERATURE, EMBEDDING = 0.2, 128
OPTIMIZER: dict[str, float] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


class Setting(NamedTuple):
    """network: of RECIPES. precision: of PRECISIONS. batch: images a step, two views of each. images: in the data set.
    workers: processes of the peers' DataLoader; evensphere's needs none. channels_last: the peers' memory format."""

    network: str
    precision: str
    batch: int
    images: int = 10_000
    workers: int = 2
    channels_last: bool = False

    @property
    def recipe(self) -> Recipe:
        settings = [f"batch_size={self.batch}", f"precision={PRECISIONS[self.precision]}"]
        return get_recipe(RECIPES[self.network]).set(settings)

    def encoder(self) -> nn.Module:
        encoder = build_encoder(self.recipe, in_channels=3)
        return encoder.to(memory_format=torch.channels_last) if self.channels_last else encoder  # type: ignore[call-overload]

    def on_device_format(self, view: Tensor) -> Tensor:
        return view.contiguous(memory_format=torch.channels_last) if self.channels_last else view

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")


def pixels(count: int) -> Tensor:
    """Made-up images, uint8 [N, 3, 32, 32]: random pixels cost as much as any."""
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Images(torch.utils.data.Dataset[tuple[Any, int]]):
    """Images as torchvision's CIFAR classes hand them out: PIL, then the transform; and a label nobody uses."""

    def __init__(self, count: int, transform: Any) -> None:
        self.arrays, self.transform = pixels(count).permute(0, 2, 3, 1).numpy(), transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.arrays[i])), 0


def endless(loader: Any) -> Any:
    """Batches of a DataLoader, epoch after epoch."""
    while True:
        yield from loader
