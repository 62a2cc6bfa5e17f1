"""Encoders: the shapes, names and sizes people expect."""

from __future__ import annotations

import pytest
import torch
import torchvision

from evensphere.errors import InputError
from evensphere.nn.backbone import resnet18, resnet_small, timm_backbone
from evensphere.nn.head import projector


def test_resnet18_with_the_imagenet_stem_is_torchvisions() -> None:
    ours, theirs = resnet18(stem="imagenet").eval(), torchvision.models.resnet18().eval()
    theirs.fc = torch.nn.Identity()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(images), theirs(images), atol=1e-6)


def test_the_cifar_stem_keeps_the_resolution() -> None:
    encoder = resnet18()
    assert sum(p.numel() for p in encoder.parameters()) == 11_168_832  # published ResNet-18 for CIFAR, classifier aside
    features = encoder.layer1(encoder.maxpool(encoder.conv1(torch.zeros(1, 3, 32, 32))))  # type: ignore[operator]
    assert features.shape == (1, 64, 32, 32)
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, encoder.num_features) == (2, 512)


def test_the_half_stem_halves_the_resolution_and_nothing_else() -> None:
    whole, half = resnet_small(width=4), resnet_small(width=4, stem="cifar-half")
    assert half.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 16, 16)
    assert {name: p.shape for name, p in half.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (4, 48)])
def test_small_resnets_take_any_channels_and_size(channels: int, side: int) -> None:
    encoder = resnet_small(channels, width=4, stages=3, blocks=2)
    assert encoder(torch.zeros(2, channels, side, side)).shape == (2, encoder.num_features) == (2, 16)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_timm_models_give_features(name: str) -> None:
    encoder = timm_backbone(name, in_channels=1).eval()
    side = 224 if "vit" in name else 64
    assert encoder(torch.zeros(1, 1, side, side)).shape == (1, encoder.num_features)


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        timm_backbone("resnet500")
    with pytest.raises(InputError, match="at least 1"):
        resnet_small(width=0)


def test_the_projector_is_the_papers() -> None:
    head = projector(64, 128)
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert head[0].bias is not None
    assert head[3].bias is None
    assert head(torch.randn(4, 64)).shape == (4, 128)
