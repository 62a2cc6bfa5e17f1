"""The encoder's weights under the names that others expect."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from evensphere.disk import atomic_write
from evensphere.engine.weights import load_weights, read_tensors
from evensphere.errors import InputError
from evensphere.export.checks import Exported, check_outputs
from evensphere.export.stock import Stock, resnet_shape, stock_name, timm_model, torchvision_model
from evensphere.export.subject import Subject
from evensphere.nn.key_maps import LAYOUTS
from evensphere.recipes.network import build_encoder

State = dict[str, Tensor]

_TORCH = (".pth", ".pt", ".bin")  # suffixes of files that torch.load reads


def to_timm(subject: Subject, out: Path) -> Exported:
    """A state dict for timm's model of that name."""
    return _to_stock(subject, out, timm_model(subject), own_state(subject), "timm")


def to_torchvision(subject: Subject, out: Path) -> Exported:
    """A state dict for torchvision's model of that name, and for the body of its detectors."""
    stock = torchvision_model(subject)
    layout = LAYOUTS["torchvision ViT" if stock.name.startswith("vit_") else "torchvision or timm"]
    return _to_stock(subject, out, stock, {layout(k)[0]: v for k, v in own_state(subject).items()}, "torchvision")


def _to_stock(subject: Subject, out: Path, stock: Stock, state: State, library: str) -> Exported:
    check_suffix(out, (".safetensors", *_TORCH))
    try:
        model = stock.build().eval()
    except Exception as error:  # each model has its own way to refuse
        raise InputError(f"{library}'s {stock.name} cannot be made like the encoder: {_line(error)}.") from error
    try:  # before an earlier file of that name is replaced
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(
            f"{library}'s {stock.name} does not take the weights of {subject.recipe.backbone.name} ({_line(error)})."
        ) from error
    files = write_state(subject, state, out)
    model.load_state_dict(read_tensors(out), strict=True)
    apart = check_outputs(subject, model, f"{library}'s {stock.name}")
    code = [*stock.lines, *_loading(out), "features = model.eval()(pixels)"]
    return Exported(files, f"{library} {version(library)}'s {stock.name}", apart, subject.images, "\n".join(code))


def to_safetensors(subject: Subject, out: Path) -> Exported:
    """The encoder under its own names, whatever its shape, with what is to be known of it in the header."""
    check_suffix(out, (".safetensors",))
    files = write_state(subject, own_state(subject), out)
    encoder = _another(subject)
    encoder.load_state_dict(load_file(out), strict=True)
    apart = check_outputs(subject, encoder, "evensphere")
    options = ", ".join(f"{key}={value!r}" for key, value in subject.recipe.backbone.options.items())
    part = f"Part({subject.recipe.backbone.name!r}{', ' * bool(options)}{options})"
    code = [
        "from evensphere.recipes.part import Part, build",
        "from safetensors.torch import load_file",
        f"size = ({subject.views.size},)",
        f"model = build('backbone', {part}, in_channels={subject.channels}, image_sizes=size)",
        f"model.load_state_dict(load_file({str(out)!r}), strict=True)",
        "features = model.eval()(pixels)",
    ]
    return Exported(files, "evensphere", apart, subject.images, "\n".join(code))


# --- detectors --------------------------------------------------------------------------------------------------------


def to_detectron2(subject: Subject, out: Path) -> Exported:
    """A checkpoint for detectron2's ResNets, FPN or not: it matches the names' ends with those of its model."""
    check_suffix(out, (".pth",))
    shape = resnet_shape(subject, "detectron2")
    stock_name(subject)
    names = {ours: LAYOUTS["detectron2"](ours)[0] for ours in own_state(subject)}
    state = {names[ours]: value for ours, value in own_state(subject).items() if not ours.endswith(_COUNTER)}
    files = [
        _torch_file(out, {"model": state, "__author__": "evensphere", "matching_heuristics": True} | _note(subject))
    ]
    depth = (3 if shape.bottleneck else 2) * sum(shape.depths) + 2
    mean, std = _levels(subject)
    code = [
        "# in detectron2's config",
        f"MODEL: {{WEIGHTS: {json.dumps(str(out))}, PIXEL_MEAN: {mean}, PIXEL_STD: {std},",
        f"        RESNETS: {{DEPTH: {depth}, STRIDE_IN_1X1: False"
        + ("" if shape.bottleneck else ", RES2_OUT_CHANNELS: 64")
        + "}}",
        'INPUT: {FORMAT: "RGB"}',
    ]
    return _checked_by_names(subject, out, files, code)


def to_mmdet(subject: Subject, out: Path) -> Exported:
    """A checkpoint for the ResNets of mmdetection and its kin, which have torchvision's names."""
    check_suffix(out, (".pth",))
    shape = resnet_shape(subject, "mmdetection")
    stock_name(subject)
    files = [_torch_file(out, {"state_dict": own_state(subject), "meta": _note(subject)})]
    depth = (3 if shape.bottleneck else 2) * sum(shape.depths) + 2
    mean, std = _levels(subject)
    code = [
        "# in mmdetection's config",
        f"backbone = dict(type='ResNet', depth={depth}, style='pytorch',",
        f"                init_cfg=dict(type='Pretrained', checkpoint={str(out)!r}))",
        f"data_preprocessor = dict(type='DetDataPreprocessor', mean={mean}, std={std}, bgr_to_rgb=True)",
    ]
    return _checked_by_names(subject, out, files, code)


def _checked_by_names(subject: Subject, out: Path, files: list[Path], code: list[str]) -> Exported:
    encoder = _another(subject)
    load_weights(encoder, out)
    apart = check_outputs(subject, encoder, "evensphere")
    return Exported(files, "evensphere under those names", apart, subject.images, "\n".join(code))


def _levels(subject: Subject) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels in 0..255."""
    mean, std = ([round(255 * one, 4) for one in each] for each in (subject.views.mean, subject.views.std))
    return mean, std


# --- files ------------------------------------------------------------------------------------------------------------

_COUNTER = "num_batches_tracked"


def own_state(subject: Subject) -> State:
    """The encoder's state dict, ready to be written."""
    return {name: value.detach().contiguous().clone() for name, value in subject.encoder.state_dict().items()}


def write_state(subject: Subject, state: State, out: Path) -> list[Path]:
    """A state dict: as safetensors with the metadata in its header, or torch's with a .json beside it."""
    files = state_files(out)
    if out.suffix == ".safetensors":
        atomic_write(out, save_safetensors(state, subject.header))
        return files
    atomic_write(files[1], json.dumps(subject.metadata, indent=2) + "\n")
    _torch_file(out, state)
    return files


def state_files(out: Path) -> list[Path]:
    """What `write_state` writes: `out` first."""
    return [out] if out.suffix == ".safetensors" else [out, out.with_name(f"{out.name}.json")]


def _torch_file(out: Path, content: Mapping[str, Any]) -> Path:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    atomic_write(out, buffer.getbuffer())
    return out


def check_suffix(out: Path, allowed: tuple[str, ...]) -> None:
    if out.suffix not in allowed:
        raise InputError(f"--out {out} was given; its name must end with {' or '.join(allowed)}.")


def _note(subject: Subject) -> dict[str, Any]:
    """The metadata for a checkpoint that has room for it, as text: nothing but tensors and texts is in there."""
    return {"evensphere": json.dumps(subject.metadata)}


def _another(subject: Subject) -> nn.Module:
    """An encoder of the same shape, with other weights."""
    return build_encoder(subject.recipe, subject.channels).eval()


def _loading(out: Path) -> list[str]:
    if out.suffix == ".safetensors":
        reading = ["from safetensors.torch import load_file", f"state = load_file({str(out)!r})"]
    else:
        reading = [f"state = torch.load({str(out)!r}, weights_only=True)"]
    return [*reading, "model.load_state_dict(state, strict=True)"]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
