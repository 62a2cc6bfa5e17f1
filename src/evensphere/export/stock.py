"""Which stock models of timm and torchvision a run's encoder is, if any.

Models for large images begin with a 7x7 convolution of stride 2 and pooling. Our networks for small images ("cifar")
begin otherwise, as is usual for them: two layers of the stock model are then replaced before the weights go in. What is
built upon the stock model's strides (detectors, Hugging Face's ResNets) is out of their reach.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from evensphere.errors import InputError
from evensphere.export.subject import Subject
from evensphere.nn.backbone import ResNet

_ELSEWHERE = "export it --to safetensors, onnx or torch-export"
_OURS = ("resnet18", "resnet34", "resnet50")
_VITS = {  # timm's names and torchvision's
    "vit_base_patch16_224": "vit_b_16",
    "vit_base_patch32_224": "vit_b_32",
    "vit_large_patch16_224": "vit_l_16",
    "vit_large_patch32_224": "vit_l_32",
}


class Stock(NamedTuple):
    """A stock model. name: in its library. lines: of Python that make it. build: does what they do."""

    name: str
    lines: list[str]
    build: Callable[[], nn.Module]


def timm_model(subject: Subject) -> Stock:
    """timm's model, without a classifier, that takes the encoder's weights. Raises InputError if there is none."""
    import timm

    name = stock_name(subject)
    options = {"num_classes": 0, "in_chans": subject.channels} | model_args(subject)
    spelled = ", ".join(f"{key}={value!r}" for key, value in options.items())
    lines = ["import timm, torch", f"model = timm.create_model({name!r}, {spelled})", *_changes(subject)]
    return Stock(name, lines, lambda: _changed(timm.create_model(name, **options), subject))


def torchvision_model(subject: Subject) -> Stock:
    """torchvision's model, with nothing in its classifier's place. Raises InputError if there is none."""
    import torchvision

    timm_name = stock_name(subject)
    name = _VITS.get(timm_name, timm_name)
    vit = timm_name in _VITS
    if name not in torchvision.models.list_models(torchvision.models):
        raise InputError(f"torchvision has no model {name}; export it --to timm, safetensors, onnx or torch-export.")
    options = {"image_size": subject.views.size} if vit else {}
    head = "heads" if vit else "fc"
    lines = [
        "import torch, torchvision",
        f"model = torchvision.models.{name}({', '.join(f'{key}={value}' for key, value in options.items())})",
        f"model.{head} = torch.nn.Identity()  # the encoder has no classifier",
        *_changes(subject, any_channels=False),
    ]

    def build() -> nn.Module:
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        setattr(model, head, nn.Identity())
        return _changed(model, subject, any_channels=False)

    return Stock(name, lines, build)


def stock_name(subject: Subject) -> str:
    """timm's name of the encoder's network. Raises InputError if it has none."""
    name = subject.recipe.backbone.name
    if name.startswith("timm/"):
        return name.removeprefix("timm/")
    if isinstance(subject.encoder, ResNet) and name in _OURS:
        width = subject.encoder.conv1.out_channels
        if width == 64:
            return name
        name = f"{name} with {width} channels where stock models have 64"
    raise InputError(f"There is no stock model of the shape of {name}; {_ELSEWHERE}.")


def model_args(subject: Subject) -> dict[str, Any]:
    """With what timm makes the model, beyond its name, the number of channels and having no classifier."""
    backbone = subject.recipe.backbone
    if not backbone.name.startswith("timm/"):
        return {}
    size = getattr(getattr(subject.encoder, "patch_embed", None), "img_size", None)
    made_for = {} if size is None else {"img_size": size[0]}
    return made_for | {key: value for key, value in backbone.options.items() if key != "pretrained"}


# --- the first layers -------------------------------------------------------------------------------------------------


def _changes(subject: Subject, any_channels: bool = True) -> list[str]:
    """What is changed in a stock model before it takes the weights. any_channels: whether it is made for them."""
    channels, stride = subject.channels, small_stride(subject)
    if stride is not None:
        return [
            f"model.conv1 = torch.nn.Conv2d({channels}, 64, 3, {stride}, 1, bias=False)  # for small images",
            "model.maxpool = torch.nn.Identity()",
        ]
    if any_channels or channels == 3:
        return []
    return [f"model.conv1 = torch.nn.Conv2d({channels}, 64, 7, 2, 3, bias=False)"]


def _changed(model: nn.Module, subject: Subject, any_channels: bool = True) -> nn.Module:
    """What `_changes` says."""
    channels, stride = subject.channels, small_stride(subject)
    if stride is not None:
        model.conv1 = nn.Conv2d(channels, 64, 3, stride, 1, bias=False)
        model.maxpool = nn.Identity()
    elif not any_channels and channels != 3:
        model.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return model


def small_stride(subject: Subject) -> int | None:
    """The stride with which a network for small images begins; None for others."""
    encoder = subject.encoder
    small = isinstance(encoder, ResNet) and encoder.conv1.kernel_size == (3, 3)
    return int(encoder.conv1.stride[0]) if small and isinstance(encoder, ResNet) else None


# --- ResNets, whatever their width ------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """A ResNet with the strides of stock ones. stem: channels of the first layer. widths: channels that leave each
    stage. depths: blocks of each. bottleneck: the kind of block."""

    stem: int
    widths: list[int]
    depths: list[int]
    bottleneck: bool


_NAMES = re.compile(r"(conv1|bn1|layer\d\.\d+\.(conv[123]|bn[123]|downsample\.[01]))\.\w+")


def resnet_shape(subject: Subject, what: str) -> Shape:
    """Of what is made like stock ResNets, from the first layer on. Raises InputError for other encoders, which `what`
    cannot take."""
    state = {key: tuple(value.shape) for key, value in subject.encoder.state_dict().items()}
    known = all(_NAMES.fullmatch(key) for key in state) and state.get("conv1.weight", ())[2:] == (7, 7)
    if not known:
        small = " for small images" if small_stride(subject) is not None else ""
        raise InputError(
            f"{what} takes ResNets like torchvision's, and {subject.run.path} has a {subject.recipe.backbone.name}"
            f"{small}; train with --set backbone=resnet50 --set backbone.stem=imagenet, or {_ELSEWHERE}."
        )
    stages = sorted({key.partition(".")[0] for key in state if key.startswith("layer")})
    bottleneck = "layer1.0.bn3.weight" in state
    last = "bn3" if bottleneck else "bn2"
    widths = [state[f"{stage}.0.{last}.weight"][0] for stage in stages]
    depths = [len({key.split(".")[1] for key in state if key.startswith(f"{stage}.")}) for stage in stages]
    return Shape(state["bn1.weight"][0], widths, depths, bottleneck)
