"""Encoders from files: other people's weights and a run's own, with views that suit the images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from evensphere.data.folder import folder
from evensphere.data.source import Source
from evensphere.engine.checkpoint import save_encoder
from evensphere.engine.embed import embed
from evensphere.errors import InputError
from evensphere.nn.backbone import resnet_small
from evensphere.recipes.frozen import by_weights


def images_of(mode: str, path: Path) -> Source:
    path.mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (80 * i, 30, 200)).convert(mode).save(path / f"{i}.png")
    return folder(path).pretrain


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_timm_model_sees_images_of_any_number_of_channels(mode: str, channels: int, tmp_path: Path) -> None:
    import timm

    save_file(timm.create_model("test_resnet", in_chans=channels).state_dict(), tmp_path / "w.safetensors")
    found = by_weights(images_of(mode, tmp_path / "images"), "timm/test_resnet", tmp_path / "w.safetensors")
    assert len(found.views.mean) == channels
    assert found.made_by == "test_resnet with w.safetensors"
    assert embed(found.source, found.encoder, found.views).features.isfinite().all()


def test_a_runs_encoder_says_itself_what_it_is(tmp_path: Path) -> None:
    trained, file = resnet_small(1, 4, stages=2), tmp_path / "encoder.safetensors"
    views = {"name": "digits", "options": {"size": 8}}
    description = {"backbone": {"name": "resnet-small", "options": {"width": 4, "stages": 2}}, "views": views}
    save_encoder(file, trained, description)
    source = images_of("L", tmp_path / "images")
    found = by_weights(source, None, file)
    assert (found.views.size, found.made_by) == (8, "the encoder encoder.safetensors")
    for name, value in found.encoder.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    with pytest.raises(InputError, match="is damaged or does not fit"):
        by_weights(images_of("RGB", tmp_path / "colour"), None, file)
    for half in ({"backbone": description["backbone"]}, {"backbone": "resnet-small", "views": views}, {}):
        save_encoder(file, trained, half)
        with pytest.raises(InputError, match="does not say what network it is of; add --backbone NAME"):
            by_weights(source, None, file)


@pytest.mark.parametrize("header", ["{", "[" * 10**5, '{"a": 1e400}'])
def test_a_description_that_is_none_is_one_sentence(header: str, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"evensphere": header})
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        by_weights(images_of("L", tmp_path / "images"), None, tmp_path / "w.safetensors")
