"""What looks at images before any training: a network whose weights lie on the disk, or plain statistics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from evensphere.data.augment import Views
from evensphere.data.source import Source
from evensphere.diagnosis.finding import Finding
from evensphere.diagnosis.simple import SIZE, SimpleStatistics
from evensphere.errors import InputError
from evensphere.nn.backbone import timm_backbone
from evensphere.recipes.channels import with_channels
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import get_recipe


class Eye(NamedTuple):
    """network: from normalised images to features. views: of the images, as the network wants them. what: in words.
    learnt: whether the network has been trained. finding: how far its features can be trusted."""

    network: nn.Module
    views: Views
    what: str
    learnt: bool
    finding: Finding


_TITLE = "What are images compared by?"


def open_eye(source: Source, backbone: str | None, weights: Path | None) -> Eye:
    """For images of a source. Raises InputError for weights that do not fit, or half of what is needed."""
    if weights is None:
        if backbone is not None:
            raise InputError(
                f"--backbone {backbone} was given without --weights; give the safetensors file of its weights, since "
                "nothing is downloaded here."
            )
        return _statistics(source)
    description = _description(weights)
    if description is not None and backbone is None:
        return _own_encoder(source, weights, description)
    if backbone is None:
        raise InputError(f"{weights} does not say what network it is of; add --backbone NAME, a timm model.")
    return _timm(source, backbone.removeprefix("timm/"), weights)


def _statistics(source: Source) -> Eye:
    views = _views(source, Part("photos", size=SIZE))
    finding = Finding(
        "features",
        _TITLE,
        "info",
        "By their colours, layout and edges, not by what they show: nothing has been learnt from these images yet.",
        {"features": "a tiny copy, colour and edge histograms, whitened"},
        "The nearest image by these statistics is of the same class for 68 % of the Grocery Store photos, whose "
        "classes are mostly one scene each, and for 13 % of CIFAR-100 (guessing: 1 %; docs/log.md). In neither did "
        "densities or region sizes go with the sizes of the classes (rank correlations of -0.02 to +0.05).",
        "For a look at what is shown, give a pretrained network (--backbone NAME --weights FILE.safetensors), or "
        "diagnose the run after training.",
    )
    return Eye(SimpleStatistics(views.mean, views.std), views, "by simple statistics", False, finding)


def _own_encoder(source: Source, weights: Path, description: dict[str, Any]) -> Eye:
    views: Views = build("views", Part(description["views"]["name"], **description["views"]["options"]), seed=0)
    part = Part(description["backbone"]["name"], **description["backbone"]["options"])
    network: nn.Module = build("backbone", part, in_channels=source.channels, image_sizes=views.sizes)
    _load(network, weights, part.name)
    return Eye(network, views, f"by the encoder {weights.name}", True, _learnt(f"the encoder {weights.name}"))


def _timm(source: Source, name: str, weights: Path) -> Eye:
    import timm

    network = timm_backbone(name, source.channels)
    config = timm.get_pretrained_cfg(name)
    assert config is not None, "timm_backbone has asked for it"
    views = _views(source, Part("photos", size=config.input_size[-1], mean=list(config.mean), std=list(config.std)))
    _load(network, weights, name)
    return Eye(network, views, f"by {name} of {weights.name}", True, _learnt(name))


def _learnt(name: str) -> Finding:
    return Finding(
        "features",
        _TITLE,
        "info",
        f"By the features of {name}, which has learnt from other images than these.",
        {"features": name},
        "What it was trained to tell apart it tells apart here, too; kinds that only your images have may look alike "
        "to it.",
        "Look at a few neighbours before you rely on it.",
    )


def _views(source: Source, part: Part) -> Views:
    """Views for as many channels as the images have."""
    recipe = with_channels(replace(get_recipe("folder"), views=_for(source, part)), source)
    views: Views = build("views", recipe.views, seed=0)
    return views


def _for(source: Source, part: Part) -> Part:
    """Without the means of three channels where there are others."""
    if source.channels == len(part.options.get("mean", ())):
        return part
    return Part(part.name, **{name: value for name, value in part.options.items() if name not in ("mean", "std")})


def _description(weights: Path) -> dict[str, Any] | None:
    """What the header of an encoder.safetensors says of it; None for other people's weights."""
    try:
        with safe_open(weights, "pt") as file:
            text = (file.metadata() or {}).get("evensphere")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{weights} cannot be read as safetensors ({error}); give a file of that format.") from error
    return None if text is None else dict(json.loads(text))


def _load(network: nn.Module, weights: Path, name: str) -> None:
    """A classifier that the file holds beyond the network is left out."""
    try:
        missing = network.load_state_dict(load_file(weights), strict=False).missing_keys
    except RuntimeError as error:  # of another shape
        raise InputError(f"{weights} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    if missing:
        raise InputError(
            f"{weights} lacks {len(missing)} tensors of {name}, the first being {missing[0]}; is it of that model?"
        )
