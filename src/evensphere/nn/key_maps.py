"""What others call the weights of our encoders.

A layout says, for each name in our encoder's state dict, which of their tensors hold it: one, or several that are put
together along the first axis. Our ResNets carry torchvision's names, as timm's do; ViTs are timm's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Layout = Callable[[str], tuple[str, ...]]
_Rule = tuple[str, "str | Callable[[re.Match[str]], str]"]


def _renamed(rules: Sequence[_Rule]) -> Layout:
    """A layout of rules that are applied one after the other."""

    def theirs(name: str) -> tuple[str, ...]:
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        return (name,)

    return theirs


def _shifted(before: str, by: int, after: str) -> Callable[[re.Match[str]], str]:
    """A number in a name, counted from elsewhere."""
    return lambda match: f"{before}{int(match[1]) + by}{after}"


_SHORTCUT = (r"\.downsample\.", ".shortcut.")

_DETECTRON2 = _renamed(
    [
        (r"^conv1\.", "stem.conv1."),
        (r"^bn1\.", "stem.conv1.norm."),
        (r"^layer(\d)\.", _shifted("res", 1, ".")),
        (r"\.bn(\d)\.", r".conv\1.norm."),
        (r"\.downsample\.0\.", ".shortcut."),
        (r"\.downsample\.1\.", ".shortcut.norm."),
    ]
)

_HUGGING_FACE_RESNET = _renamed(
    [
        (r"^conv1\.", "embedder.embedder.convolution."),
        (r"^bn1\.", "embedder.embedder.normalization."),
        (r"^layer(\d+)\.", _shifted("encoder.stages.", -1, ".layers.")),
        (r"\.conv(\d)\.", _shifted(".layer.", -1, ".convolution.")),
        (r"\.bn(\d)\.", _shifted(".layer.", -1, ".normalization.")),
        (r"\.downsample\.0\.", ".shortcut.convolution."),
        (r"\.downsample\.1\.", ".shortcut.normalization."),
    ]
)

# SDCLR has each BatchNorm twice; the first is that of the dense network
_SDCLR = _renamed(
    [
        (r"\bbn(\d)\.", r"bn\1.bn_list.0."),
        (r"\.downsample\.0\.", ".downsample.conv."),
        (r"\.downsample\.1\.", ".downsample.bn.bn_list.0."),
    ]
)

TWICE = "the authors' SDCLR"

_TORCHVISION_VIT = _renamed(
    [
        (r"^cls_token$", "class_token"),
        (r"^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^norm\.", "encoder.ln."),
        (r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."),
        (r"\.norm(\d)\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".self_attention.in_proj_"),
        (r"\.attn\.proj\.", ".self_attention.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    ]
)

_HUGGING_FACE_VIT = _renamed(
    [
        (r"^cls_token$", "embeddings.cls_token"),
        (r"^pos_embed$", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"\.norm1\.", ".layernorm_before."),
        (r"\.norm2\.", ".layernorm_after."),
        (r"\.attn\.qkv\.", ".attention.attention.qkv."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ]
)


def _three_parts(name: str) -> tuple[str, ...]:
    """Hugging Face keeps queries, keys and values apart."""
    (theirs,) = _HUGGING_FACE_VIT(name)
    before, qkv, after = theirs.partition(".attention.attention.qkv.")
    parts = ("query", "key", "value")
    return tuple(f"{before}.attention.attention.{part}.{after}" for part in parts) if qkv else (theirs,)


# in the order in which they are tried
LAYOUTS: dict[str, Layout] = {
    "torchvision or timm": _renamed([]),
    "torchvision's layers in a row": _renamed(
        [(r"^conv1\.", "0."), (r"^bn1\.", "1."), (r"^layer(\d)\.", _shifted("", 3, "."))]
    ),
    "the authors' ResNet": _renamed([_SHORTCUT]),
    TWICE: _SDCLR,
    "Lightly's own ResNet in a row": _renamed(
        [(r"^conv1\.", "0."), (r"^bn1\.", "1."), (r"^layer(\d)\.", _shifted("", 1, ".")), _SHORTCUT]
    ),
    "Hugging Face ResNet": _HUGGING_FACE_RESNET,
    "Hugging Face ViT": _three_parts,
    "torchvision ViT": _TORCHVISION_VIT,
    "detectron2": _DETECTRON2,
}
