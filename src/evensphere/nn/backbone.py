"""Encoders: ResNets for small images, and any timm model.

Every backbone is an nn.Module that maps images [B, C, H, W] to features [B, num_features].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from evensphere.errors import InputError, unknown_name

BACKBONES = {
    "resnet18": "evensphere.nn.backbone:resnet18",
    "resnet-small": "evensphere.nn.backbone:resnet_small",
}


Stem = Literal["cifar", "cifar-half", "imagenet"]

# (kernel, stride, padding) of the first convolution
_STEMS: dict[str, tuple[int, int, int]] = {"cifar": (3, 1, 1), "cifar-half": (3, 2, 1), "imagenet": (7, 2, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_width != width:
            self.downsample = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """A ResNet of basic blocks without its classifier. Parameters carry torchvision's names.

    widths: channels of each stage; every stage after the first halves the resolution.
    blocks: basic blocks in each stage.
    stem: "cifar" (3x3, stride 1, no pooling) for images up to about 64 pixels; "cifar-half" (the same with stride 2), a
        quarter of the work, for CPUs; "imagenet" (7x7, stride 2, pooling).
    Initialised as torch does by default, like the paper's code.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], in_channels: int, stem: Stem) -> None:
        super().__init__()
        if stem not in _STEMS:
            raise unknown_name("stem", stem, _STEMS)
        self.conv1 = nn.Conv2d(in_channels, widths[0], *_STEMS[stem], bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.stages: list[str] = []
        in_width = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (count - 1)
            stage = [BasicBlock(in_width if i == 0 else width, width, stride) for i, stride in enumerate(strides)]
            self.stages.append(f"layer{number}")
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            in_width = width
        self.num_features = in_width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b {self.num_features}"]:
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x.mean((2, 3))


def resnet18(in_channels: int = 3, stem: Stem = "cifar", width: int = 64) -> ResNet:
    """ResNet-18, by default with the paper's CIFAR stem. `width`: channels of the first stage, >= 1."""
    return ResNet(_doubling(width, 4), (2, 2, 2, 2), in_channels, stem)


def resnet_small(
    in_channels: int = 3,
    width: int = 16,
    stages: int = 3,
    blocks: int = 1,
    stem: Stem = "cifar",
) -> ResNet:
    """A ResNet small enough for two CPU cores: `stages` stages of `blocks` blocks, the first `width` channels wide."""
    return ResNet(_doubling(width, stages), (blocks,) * stages, in_channels, stem)


def timm_backbone(name: str, in_channels: int = 3, pretrained: bool = False, **options: Any) -> nn.Module:
    """Any timm model as a feature extractor. `name`: e.g. 'resnet50', 'vit_small_patch16_224'."""
    import timm  # a second of start-up that other backbones do without

    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **options)
    return model


def _doubling(width: int, stages: int) -> list[int]:
    if width < 1 or stages < 1:
        raise InputError(f"A ResNet of width {width} with {stages} stages was asked for; both must be at least 1.")
    return [width * 2**stage for stage in range(stages)]
