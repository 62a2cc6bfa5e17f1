"""An encoder in a detector: torchvision's Faster R-CNN, fine-tuned from an export.

evensphere export RUN --to torchvision --out encoder.pth      # a ResNet with --set backbone.stem=imagenet
python examples/detection.py encoder.pth path/to/photos

Boxes are not annotated but made: photos are pasted onto other photos, smaller, and where each was pasted is its box;
the folder that a photo is in is its class. It shows that the export fits and trains, not how good a detector it makes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms.v2.functional import pil_to_tensor, resize


class Scene(NamedTuple):
    image: Tensor  # float32 [3, side, side], 0..1
    target: dict[str, Tensor]


def scene(photos: ImageFolder, side: int, draw: torch.Generator) -> Scene:
    """A photo with two others in it, one in the left half and one in the right, of 1/4 to 1/2 of its side."""
    background, *pasted = torch.randint(len(photos), (3,), generator=draw).tolist()
    image, boxes, labels = square(photos, background, side), [], []
    for half, photo in enumerate(pasted):
        small = int(torch.randint(side // 4, side // 2, (), generator=draw))
        x = half * side // 2 + int(torch.randint(side // 2 - small + 1, (), generator=draw))
        y = int(torch.randint(side - small + 1, (), generator=draw))
        image[:, y : y + small, x : x + small] = square(photos, photo, small)
        boxes.append([x, y, x + small, y + small])
        labels.append(1 + photos.targets[photo])  # 0 is the background
    return Scene(image, {"boxes": torch.tensor(boxes, dtype=torch.float32), "labels": torch.tensor(labels)})


def square(photos: ImageFolder, i: int, side: int) -> Tensor:
    return resize(pil_to_tensor(photos[i][0]), [side, side], antialias=True) / 255


def detector(export: Path, classes: int, side: int) -> FasterRCNN:
    """Faster R-CNN on the export's ResNet, whose first stage and BatchNorm stay as they are."""
    about = json.loads(export.with_name(f"{export.name}.json").read_text())
    backbone = resnet_fpn_backbone(backbone_name=about["backbone"], weights=None, norm_layer=FrozenBatchNorm2d)
    backbone.body.load_state_dict(torch.load(export, weights_only=True), strict=True)
    how = {"min_size": side, "max_size": side, "image_mean": about["mean"], "image_std": about["std"]}
    few = {"rpn_pre_nms_top_n_train": 500, "rpn_post_nms_top_n_train": 200}  # proposals, for a CPU
    return FasterRCNN(backbone, 1 + classes, **how, **few)


def fine_tune(export: Path, folder: Path, steps: int, batch: int, side: int, seed: int) -> Iterator[float]:
    """The loss of each step."""
    torch.manual_seed(seed)
    draw, photos = torch.Generator().manual_seed(seed), ImageFolder(folder)
    model = detector(export, len(photos.classes), side)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.005, 0.9, weight_decay=5e-4)
    for _ in range(steps):
        images, targets = zip(*(scene(photos, side, draw) for _ in range(batch)), strict=True)
        loss = torch.stack(list(model(list(images), list(targets)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield float(loss.detach())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("photos", type=Path, help="a folder for each class")
    for name, default in (("steps", 60), ("batch", 2), ("side", 128), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    losses = []
    for loss in fine_tune(given.export, given.photos, given.steps, given.batch, given.side, given.seed):
        losses.append(loss)
        if len(losses) % 10 == 0:
            print(f"step {len(losses):4d}   mean loss of the last ten {sum(losses[-10:]) / 10:.3f}", flush=True)
