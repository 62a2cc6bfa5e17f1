"""Encoders: ResNets, WideResNets, and any timm model.

Every backbone is an nn.Module that maps images [B, C, H, W] to features [B, num_features].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from evensphere.errors import InputError, unknown_name
from evensphere.values import check_memory, check_whole

BACKBONES = {
    "resnet18": "evensphere.nn.backbone:resnet18",
    "resnet34": "evensphere.nn.backbone:resnet34",
    "resnet50": "evensphere.nn.backbone:resnet50",
    "resnet-small": "evensphere.nn.backbone:resnet_small",
    "wide-resnet": "evensphere.nn.backbone:wide_resnet",
}


Stem = Literal["cifar", "cifar-half", "imagenet"]

# (kernel, stride, padding) of the first convolution
_STEMS: dict[str, tuple[int, int, int]] = {"cifar": (3, 1, 1), "cifar-half": (3, 2, 1), "imagenet": (7, 2, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al., CVPR 2016)."""

    expansion: ClassVar[int] = 1  # channels that leave the block, for each channel of its width

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(in_width, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, and a shortcut. The 3x3 one has the stride, as in torchvision (v1.5)."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        out_width = width * self.expansion
        self.conv1 = nn.Conv2d(in_width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_width)
        self.downsample = _projection(in_width, out_width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return relu(self.bn3(self.conv3(x)) + shortcut)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution with a stride and no bias.

    torch 2.14's kernel for it writes beyond its memory on CPUs: channels_last, fewer than 16 channels in, an odd batch,
    several threads (float32 and bf16; docs/log.md). There the stride is taken first, which is the same map.
    """

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__(in_width, out_width, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        if self.in_channels >= 16:
            return super().forward(x)
        rows, columns = self.stride
        return conv2d(x[:, :, ::rows, ::columns], self.weight)


def _projection(in_width: int, out_width: int, stride: int) -> nn.Sequential | None:
    """What the shortcut needs where the block changes the shape."""
    if stride == 1 and in_width == out_width:
        return None
    return nn.Sequential(Pointwise(in_width, out_width, stride), nn.BatchNorm2d(out_width))


class ResNet(nn.Module):
    """A ResNet without its classifier. Parameters carry torchvision's names.

    widths: channels of each stage's 3x3 convolutions; every stage after the first halves the resolution.
    blocks: how many there are in each stage. block: their kind.
    stem: "cifar" (3x3, stride 1, no pooling) for images up to about 64 pixels; "cifar-half" (the same with stride 2), a
        quarter of the work, for CPUs; "imagenet" (7x7, stride 2, pooling).
    Initialised as torch does by default, like the paper's code.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        in_channels: int,
        stem: Stem,
        block: type[BasicBlock | Bottleneck] = BasicBlock,
    ) -> None:
        super().__init__()
        if stem not in _STEMS:
            raise unknown_name("stem", stem, _STEMS)
        check_memory(f"A ResNet of widths up to {max(widths)}", _bytes_of_blocks(widths, blocks, block.expansion))
        self.conv1 = nn.Conv2d(in_channels, widths[0], *_STEMS[stem], bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem == "imagenet" else nn.Identity()
        self.stages: list[str] = []
        in_width = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            strides = [1 if number == 1 else 2] + [1] * (count - 1)
            out_width = width * block.expansion
            stage = [block(in_width if i == 0 else out_width, width, stride) for i, stride in enumerate(strides)]
            self.stages.append(f"layer{number}")
            self.add_module(f"layer{number}", nn.Sequential(*stage))
            in_width = out_width
        self.num_features = in_width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b {self.num_features}"]:
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return x.mean((2, 3))


def resnet18(in_channels: int = 3, stem: Stem = "cifar", width: int = 64) -> ResNet:
    """ResNet-18, by default with the paper's CIFAR stem. `width`: channels of the first stage, >= 1."""
    return ResNet(_doubling(width, 4), (2, 2, 2, 2), in_channels, stem)


def resnet34(in_channels: int = 3, stem: Stem = "cifar", width: int = 64) -> ResNet:
    """ResNet-34; options as for ResNet-18."""
    return ResNet(_doubling(width, 4), (3, 4, 6, 3), in_channels, stem)


def resnet50(in_channels: int = 3, stem: Stem = "cifar", width: int = 64) -> ResNet:
    """ResNet-50, the paper's for the large sets, there with stem="imagenet"; options as for ResNet-18."""
    return ResNet(_doubling(width, 4), (3, 4, 6, 3), in_channels, stem, Bottleneck)


def resnet_small(
    in_channels: int = 3,
    width: int = 16,
    stages: int = 3,
    blocks: int = 1,
    stem: Stem = "cifar",
) -> ResNet:
    """A ResNet small enough for two CPU cores: `stages` stages of `blocks` blocks, the first `width` channels wide."""
    return ResNet(_doubling(width, stages), (blocks,) * stages, in_channels, stem)


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU, and a shortcut (WideResNet's B(3, 3))."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_width != width:
            self.shortcut = Pointwise(in_width, width, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        activated = relu(self.bn1(x))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.conv2(relu(self.bn2(self.conv1(activated))))
        return shortcut + residual


class WideResNet(nn.Module):
    """A WideResNet without its classifier (Zagoruyko & Komodakis, BMVC 2016, table 1), initialised as torch does.

    blocks: in each of the three stages. widths: channels of each stage; the second and the third halve the resolution.
    """

    def __init__(self, widths: Sequence[int], blocks: int, in_channels: int) -> None:
        super().__init__()
        check_memory(f"A WideResNet of widths up to {max(widths)}", _bytes_of_blocks(widths, [blocks] * 3, 1))
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        stages, in_width = [], 16
        for width, stride in zip(widths, (1, 2, 2), strict=True):
            first = WideBlock(in_width, width, stride)
            stages.append(nn.Sequential(first, *(WideBlock(width, width, 1) for _ in range(blocks - 1))))
            in_width = width
        self.stages = nn.Sequential(*stages)
        self.bn = nn.BatchNorm2d(in_width)
        self.num_features = in_width

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b {self.num_features}"]:
        return relu(self.bn(self.stages(self.conv1(x)))).mean((2, 3))


def wide_resnet(in_channels: int = 3, depth: int = 28, width: int = 2) -> WideResNet:
    """WRN-depth-width for images up to about 64 pixels, by default WRN-28-2.

    depth: convolutions on the longest path, 6n + 4 for n blocks a stage. width: the widening factor k, >= 1.
    """
    check_whole("backbone.depth", depth, 10, 1000)
    if depth % 6 != 4:
        raise InputError(f"A WideResNet of depth {depth} was asked for; give 6n + 4, such as 10, 16, 28 or 40.")
    if width < 1:
        raise InputError(f"A WideResNet of width {width} was asked for; it must be at least 1.")
    return WideResNet([16 * width, 32 * width, 64 * width], (depth - 4) // 6, in_channels)


def timm_backbone(
    name: str, in_channels: int = 3, image_sizes: Sequence[int] = (), pretrained: bool = False, **options: Any
) -> nn.Module:
    """Any timm model as a feature extractor. `name`: e.g. 'resnet50', 'vit_small_patch16_224'.

    image_sizes: sides of the images it will see, in pixels; left out, the one that it was designed for. A model that is
        made for one size, such as a ViT, is made for the first.
    options: timm's own.

    Raises InputError where the model cannot be built or cannot take such images.
    """
    import timm  # a second of start-up that other backbones do without

    if not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models())
    config = timm.get_pretrained_cfg(name)
    assert config is not None, "every model that timm knows has one"
    sizes = tuple(image_sizes) or config.input_size[-1:]
    options = {"pretrained": pretrained, "num_classes": 0, "in_chans": in_channels} | options
    try:
        model: nn.Module = _create(name, sizes[0] if config.fixed_input_size else None, options)
        features, *_ = [_look(model, torch.zeros(1, in_channels, size, size)) for size in sizes]
    except Exception as error:  # each model has its own way to refuse
        wanted = " and ".join(f"{size} x {size}" for size in sizes)
        reason = str(error).partition("\n")[0]
        raise InputError(f"timm's {name} cannot be made for images of {wanted} pixels: {reason}") from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise InputError(f"timm's {name} does not give one vector for each image; choose another backbone.")
    # timm's own number leaves out what MobileNetV3 and others do after pooling
    model.num_features = features.shape[1]  # type: ignore[assignment]
    return model


def _create(name: str, size: int | None, options: dict[str, Any]) -> Any:
    """The model, made for `size` if that is given and its constructor, which alone knows, takes it."""
    import timm

    attempts = [] if size is None else [{"img_size": size, "dynamic_img_size": True}, {"img_size": size}]
    for extra in attempts:
        try:
            return timm.create_model(name, **(extra | options))
        except TypeError:
            continue
    return timm.create_model(name, **options)


@torch.no_grad()
def _look(model: nn.Module, images: Tensor) -> Any:
    """What a model makes of images; evaluation mode leaves its BatchNorm as it is."""
    features = model.eval()(images)
    model.train()
    return features


def _bytes_of_blocks(widths: Sequence[int], blocks: Sequence[int], expansion: int) -> float:
    """At least what the weights of a network's blocks take, in float32."""
    return 4.0 * sum(
        count * width**2 * (18 if expansion == 1 else 17) for width, count in zip(widths, blocks, strict=True)
    )


def _doubling(width: int, stages: int) -> list[int]:
    if width < 1 or stages < 1:
        raise InputError(f"A ResNet of width {width} with {stages} stages was asked for; both must be at least 1.")
    check_whole("backbone.stages", stages, 1, 16)
    return [width * 2**stage for stage in range(stages)]
