"""A folder for Hugging Face: config, weights, preprocessing and a model card.

ResNets become transformers' own, so that nothing else is needed to load them. timm's models stay what they are:
transformers and timm both load such a folder.
"""

from __future__ import annotations

import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jaxtyping import Float
from safetensors.torch import save as save_safetensors
from torch import Tensor

from evensphere.disk import atomic_write, make_folder, remove
from evensphere.errors import InputError
from evensphere.export.card import model_card
from evensphere.export.checks import Exported, check_outputs
from evensphere.export.state_dicts import State, own_state
from evensphere.export.stock import Shape, model_args, resnet_shape, stock_name
from evensphere.export.subject import Subject
from evensphere.nn.key_maps import LAYOUTS

_PREPROCESSOR = "preprocessor_config.json"
_BILINEAR = 2  # PIL's number for it


def to_hugging_face(subject: Subject, out: Path) -> Exported:
    """A folder that AutoModel.from_pretrained reads."""
    transformers = _transformers()
    of_timm = subject.recipe.backbone.name.startswith("timm/")
    files: dict[str, Any] = {}
    if of_timm:
        config, state = _timm_config(subject), own_state(subject)
    else:
        shape = resnet_shape(subject, "Hugging Face")
        config = _resnet_config(subject, shape)
        state = {LAYOUTS["Hugging Face ResNet"](name)[0]: value for name, value in own_state(subject).items()}
        if subject.channels == 3:
            files[_PREPROCESSOR] = _preprocessor(subject)
    files = {"config.json": config} | files | {"evensphere.json": subject.metadata | {"run": _run(subject)}}
    written = _write(out, files, state)
    model = transformers.AutoModel.from_pretrained(str(out)).eval()

    def run(pixels: Tensor) -> Float[Tensor, "n d"]:
        features: Tensor = model(pixel_values=pixels).pooler_output
        return features.flatten(1)

    apart = check_outputs(subject, run, "transformers")
    code = [
        "from transformers import AutoImageProcessor, AutoModel",
        f"processor = AutoImageProcessor.from_pretrained({str(out)!r})",
        f"model = AutoModel.from_pretrained({str(out)!r}).eval()",
        "features = model(**processor(image, return_tensors='pt')).pooler_output.flatten(1)",
    ]
    if subject.channels != 3:
        code = [code[0], code[2], "features = model(pixel_values=pixels).pooler_output.flatten(1)"]
    by = f"transformers {version('transformers')}"
    card = out / "README.md"
    exported = Exported([*written, card], by, apart, subject.images, "\n".join(code))
    atomic_write(card, model_card(subject, exported, "timm" if of_timm else "transformers"))
    return exported


def _write(out: Path, files: dict[str, Any], state: State) -> list[Path]:
    make_folder(out)
    if _PREPROCESSOR not in files:
        remove(out / _PREPROCESSOR)  # of an earlier export, of another encoder
    for name, content in files.items():
        atomic_write(out / name, json.dumps(content, indent=2) + "\n")
    # transformers asks for this entry; what is to be known is in evensphere.json
    atomic_write(out / "model.safetensors", save_safetensors(state, {"format": "pt"}))
    return [*(out / name for name in files), out / "model.safetensors"]


def _run(subject: Subject) -> dict[str, Any]:
    """The whole recipe, but for where things lay on the machine that it ran on."""
    recipe = subject.recipe.to_json()
    recipe["data"]["options"].pop("path", None)
    for path in ("images", "init", "teachers"):
        recipe.pop(path, None)
    return recipe


def _resnet_config(subject: Subject, shape: Shape) -> dict[str, Any]:
    return {
        "architectures": ["ResNetModel"],
        "model_type": "resnet",
        "num_channels": subject.channels,
        "embedding_size": shape.stem,
        "hidden_sizes": shape.widths,
        "depths": shape.depths,
        "layer_type": "bottleneck" if shape.bottleneck else "basic",
        "hidden_act": "relu",
        "downsample_in_first_stage": False,
        "downsample_in_bottleneck": False,
    }


def _timm_config(subject: Subject) -> dict[str, Any]:
    """timm's own format, which transformers knows."""
    views = subject.views
    size = [subject.channels, views.size, views.size]
    return {
        "architecture": stock_name(subject),
        "num_classes": 0,
        "num_features": subject.features.shape[1],
        "model_args": {"in_chans": subject.channels} | model_args(subject),
        "pretrained_cfg": {
            "input_size": size,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(views.mean),
            "std": list(views.std),
            "num_classes": 0,
        },
    }


def _preprocessor(subject: Subject) -> dict[str, Any]:
    side = subject.views.size
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(subject.views.mean),
        "image_std": list(subject.views.std),
    }


def _transformers() -> Any:
    try:
        transformers: Any = import_module("transformers")
    except ImportError as error:
        raise InputError(
            "A Hugging Face folder needs transformers, to be read again; pip install 'evensphere[huggingface]'."
        ) from error
    transformers.utils.logging.disable_progress_bar()
    return transformers
