"""Encoders: the shapes, names and sizes people expect."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, relu

from evensphere.errors import InputError
from evensphere.nn.backbone import (
    Pointwise,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet_small,
    timm_backbone,
    wide_resnet,
)
from evensphere.nn.head import projector


@pytest.mark.parametrize("resnet", [resnet18, resnet34, resnet50])
def test_resnets_with_the_imagenet_stem_are_torchvisions(resnet: Callable[..., ResNet]) -> None:
    ours, theirs = resnet(stem="imagenet").eval(), getattr(torchvision.models, resnet.__name__)().eval()
    assert ours.num_features == theirs.fc.in_features
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


@pytest.mark.parametrize(
    ("depth", "width", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2), (28, 10, 36.5)],
)
def test_wide_resnets_have_the_papers_sizes(depth: int, width: int, millions: float) -> None:
    """As published, with the classifier of 10 classes."""
    with torch.device("meta"):
        encoder = wide_resnet(depth=depth, width=width)
        classifier = nn.Linear(encoder.num_features, 10)
    count = sum(p.numel() for p in (*encoder.parameters(), *classifier.parameters()))
    assert round(count / 1e6, 1) == millions
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == depth - 3, "the published depth counts the shortcuts of the three stages"


def test_a_wide_resnet_computes_what_its_figure_shows() -> None:
    """Against the network written out from its weights, stage by stage."""
    encoder = wide_resnet(in_channels=1, depth=16, width=2).eval()
    weights = {name: torch.randn(w.shape) * 0.1 for name, w in encoder.state_dict().items() if w.dtype != torch.int64}
    weights = {name: w.abs() + 1 if "running_var" in name else w for name, w in weights.items()}
    encoder.load_state_dict(weights, strict=False)

    def activate(x: Tensor, norm: str) -> Tensor:
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return relu(batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"]))

    images = torch.randn(2, 1, 16, 16)
    x = conv2d(images, weights["conv1.weight"], padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        for block in (0, 1):
            at, step = f"stages.{stage}.{block}", stride if block == 0 else 1
            y = activate(x, f"{at}.bn1")
            shortcut = conv2d(y, weights[f"{at}.shortcut.weight"], stride=step) if block == 0 else x
            y = conv2d(y, weights[f"{at}.conv1.weight"], stride=step, padding=1)
            x = conv2d(activate(y, f"{at}.bn2"), weights[f"{at}.conv2.weight"], padding=1) + shortcut
    assert x.shape == (2, 128, 4, 4)
    torch.testing.assert_close(encoder(images), activate(x, "bn").mean((2, 3)))


def test_the_half_stem_halves_the_resolution_and_nothing_else() -> None:
    whole, half = resnet_small(width=4), resnet_small(width=4, stem="cifar-half")
    assert half.conv1(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 16, 16)
    assert {name: p.shape for name, p in half.named_parameters()} == {n: p.shape for n, p in whole.named_parameters()}


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (4, 48)])
def test_small_resnets_take_any_channels_and_size(channels: int, side: int) -> None:
    encoder = resnet_small(channels, width=4, stages=3, blocks=2)
    assert encoder(torch.zeros(2, channels, side, side)).shape == (2, encoder.num_features) == (2, 16)


@pytest.mark.parametrize(
    ("name", "side", "width"),
    [
        ("resnet10t", 64, 512),
        ("mobilenetv3_small_100", 32, 1024),  # timm's num_features says 576
        ("lcnet_050", 32, 1280),  # 256
        ("efficientnet_b0", 32, 1280),
        ("convnext_atto", 64, 320),
        ("vit_tiny_patch16_224", 32, 192),
        ("vit_tiny_patch16_224", 96, 192),
        ("mixer_s32_224", 64, 512),  # takes img_size, but one size only
    ],
)
def test_timm_models_take_the_views_and_say_how_many_features_they_give(name: str, side: int, width: int) -> None:
    encoder = timm_backbone(name, in_channels=1, image_sizes=(side,))
    assert encoder.training
    assert encoder.num_features == width
    assert encoder(torch.zeros(2, 1, side, side)).shape == (2, width)


def test_a_vit_for_one_size_takes_smaller_views_too() -> None:
    encoder = timm_backbone("vit_tiny_patch16_224", image_sizes=(96, 48)).eval()
    assert encoder.pos_embed.shape == (1, 6 * 6 + 1, 192)
    assert encoder(torch.zeros(1, 3, 48, 48)).shape == (1, 192)


def test_asking_a_model_for_its_features_leaves_no_trace() -> None:
    encoder = timm_backbone("resnet10t", image_sizes=(32,))
    counters = [x for name, x in encoder.named_buffers() if name.endswith("num_batches_tracked")]
    assert counters
    assert not any(counters)


@pytest.mark.parametrize("width", [3, 16])
def test_a_strided_pointwise_convolution_is_torchs(width: int) -> None:
    """Batches of 4, contiguous: where torch's own kernel can be trusted."""
    images = torch.randn(4, width, 9, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours = Pointwise(width, 5, 2)
    theirs = torch.nn.Conv2d(width, 5, 1, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    outputs = ours(images), theirs(images)
    assert torch.allclose(*outputs, atol=1e-6)
    first, second = (
        torch.autograd.grad(output.square().sum(), (images, convolution.weight))
        for output, convolution in zip(outputs, (ours, theirs), strict=True)
    )
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(first, second, strict=True))


def test_narrow_networks_survive_odd_batches_on_several_threads() -> None:
    """In a process of its own: with torch's strided kernel it ends with a segmentation fault."""
    code = """
import torch
from evensphere.nn.backbone import resnet_small
torch.set_num_threads(2)
encoder = resnet_small(3, width=4).to(memory_format=torch.channels_last)
for _ in range(10):
    images = torch.randn(39, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    encoder(images).square().mean().backward()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'resnet50'"):
        timm_backbone("resnet500")
    with pytest.raises(InputError, match=r"vit_tiny_patch16_224 .* 40 x 40 pixels: .*divisible by patch size"):
        timm_backbone("vit_tiny_patch16_224", image_sizes=(40,))
    with pytest.raises(InputError, match="96 x 96 and 41 x 41 pixels"):
        timm_backbone("vit_tiny_patch16_224", image_sizes=(96, 41))
    with pytest.raises(InputError, match="unexpected keyword argument 'colour'"):
        timm_backbone("resnet10t", colour=3)
    with pytest.raises(InputError, match="one vector for each image"):
        timm_backbone("resnet10t", image_sizes=(32,), features_only=True)
    with pytest.raises(InputError, match="at least 1"):
        resnet_small(width=0)
    with pytest.raises(InputError, match="6n \\+ 4"):
        wide_resnet(depth=18)
    with pytest.raises(InputError, match="at least 1"):
        wide_resnet(width=0)


def test_the_projector_is_the_papers() -> None:
    head = projector(64, 128)
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert head[0].bias is not None
    assert head[3].bias is None
    assert head(torch.randn(4, 64)).shape == (4, 128)
