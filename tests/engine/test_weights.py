"""Weights from elsewhere: checkpoints as others make them give their outputs, and nothing is run or left unsaid."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from tests.export.made_up import randomise
from torch import Tensor, nn

from evensphere.engine.weights import load_weights
from evensphere.errors import InputError
from evensphere.nn.backbone import resnet18, timm_backbone

State = dict[str, Tensor]


def theirs() -> nn.Module:
    """torchvision's ResNet-18 with a classifier."""
    torch.manual_seed(1)
    model: nn.Module = torchvision.models.resnet18(num_classes=5)
    randomise(model)
    return model


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def lightly_method(backbone: nn.Module) -> nn.Module:
    """A method as Lightly's examples write one."""
    from lightly.models.modules import SimCLRProjectionHead

    method = nn.Module()
    method.backbone, method.projection_head = backbone, SimCLRProjectionHead(512, 512, 128)
    return method


def in_a_row(model: nn.Module) -> nn.Module:
    return nn.Sequential(*list(model.children())[:-1])


WRAPPED: dict[str, Callable[[nn.Module], Any]] = {
    "torchvision": lambda model: model.state_dict(),
    "a wrapped one": lambda model: {"epoch": 3, "model": under("module.", model.state_dict())},
    "lightly": lambda model: lightly_method(in_a_row(model)).state_dict(),
    "lightly in a Lightning checkpoint": lambda model: {
        "state_dict": lightly_method(in_a_row(model)).state_dict(),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1},
    },
    "lightly's twins": lambda model: {
        **under("teacher_backbone.", in_a_row(resnet(torch.zeros(()))).state_dict()),
        **under("student_backbone.", in_a_row(model).state_dict()),
    },
    "solo-learn": lambda model: {
        "state_dict": under("backbone.", without_fc(model)) | {"projector.0.weight": torch.ones(3, 3)},
        "epoch": 9,
    },
    "MoCo": lambda model: {
        "arch": "resnet18",
        "state_dict": under("module.encoder_k.", without_fc(resnet(torch.zeros(()))))
        | under("module.encoder_q.", model.state_dict())
        | {"module.queue": torch.ones(128, 16)},
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "MoCo v3": lambda model: {
        "state_dict": under("module.momentum_encoder.", without_fc(resnet(torch.zeros(()))))
        | under("module.base_encoder.", without_fc(model))
        | {"module.predictor.0.weight": torch.ones(3, 3)},
    },
}


def resnet(fill: Tensor) -> nn.Module:
    """One whose weights are all the same."""
    model: nn.Module = torchvision.models.resnet18(num_classes=5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(fill)
    return model


def without_fc(model: nn.Module) -> State:
    return {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}


@pytest.mark.parametrize("kind", WRAPPED)
@torch.no_grad()
def test_a_checkpoint_gives_its_networks_outputs(kind: str, tmp_path: Path) -> None:
    model = theirs()
    torch.save(WRAPPED[kind](model), tmp_path / "checkpoint.pth")
    encoder = resnet18(stem="imagenet")
    loaded = load_weights(encoder, tmp_path / "checkpoint.pth")
    model.fc = nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(images), model.eval()(images), rtol=0, atol=1e-5)
    assert loaded.tensors == len(encoder.state_dict())
    assert sum(loaded.left_out.values()) > 0, "a classifier, a projector or a twin"


@torch.no_grad()
def test_lightlys_own_resnet(tmp_path: Path) -> None:
    from lightly.models import ResNetGenerator

    source = ResNetGenerator("resnet-18").eval()
    randomise(source)
    torch.save(lightly_method(nn.Sequential(*list(source.children())[:-1])).state_dict(), tmp_path / "lightly.pth")
    encoder = resnet18(stem="cifar").eval()
    loaded = load_weights(encoder, tmp_path / "lightly.pth")
    assert loaded.layout == "Lightly's own ResNet in a row"
    source.linear = nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder(images), source(images), rtol=0, atol=1e-5)


class Block(nn.Module):
    """As the authors of GH write it (after kuangliu's): the shortcut has a name of its own."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or given != width:
            self.shortcut = nn.Sequential(nn.Conv2d(given, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


class Reference(nn.Module):
    """The network of the authors' CIFAR script: the backbone is registered twice, alone and before the projector."""

    def __init__(self) -> None:
        super().__init__()
        backbone = nn.Module()
        backbone.conv1, backbone.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        for number, (given, width) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
            blocks = nn.Sequential(Block(given, width, 1 if number == 1 else 2), Block(width, width, 1))
            backbone.add_module(f"layer{number}", blocks)
        self.backbone, self.projector = backbone, nn.Sequential(nn.Linear(512, 128))
        self.encoder = nn.Sequential(self.backbone, self.projector)

    def forward(self, x: Tensor) -> Tensor:
        b: Any = self.backbone
        y: Tensor = b.layer4(b.layer3(b.layer2(b.layer1(torch.relu(b.bn1(b.conv1(x)))))))
        return y.mean((2, 3))


@torch.no_grad()
def test_the_authors_checkpoint(tmp_path: Path) -> None:
    source = Reference().eval()
    randomise(source)
    torch.save(source.state_dict(), tmp_path / "gh.pt")
    encoder = resnet18()
    loaded = load_weights(encoder, tmp_path / "gh.pt")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(encoder.eval()(images), source(images), rtol=0, atol=1e-5)
    assert loaded.prefix == "backbone."
    assert set(loaded.left_out) == {"encoder", "projector"}


def test_the_authors_sdclr_has_each_norm_twice(tmp_path: Path) -> None:
    own = resnet18(stem="imagenet")
    randomise(own)
    state = {}
    for name, value in own.state_dict().items():
        name = re.sub(r"downsample\.0", "downsample.conv", name)
        name = re.sub(r"downsample\.1", "downsample.bn", name)
        twice = re.sub(r"\b(bn\d?)\.", r"\1.bn_list.0.", name)
        state["backbone." + twice] = value
        if "bn_list.0" in twice:
            state["backbone." + twice.replace("bn_list.0", "bn_list.1")] = torch.zeros_like(value)
    torch.save(state | {"backbone.normalize.mean": torch.zeros(3)}, tmp_path / "sdclr.pt")
    encoder = resnet18(stem="imagenet")
    load_weights(encoder, tmp_path / "sdclr.pt")
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in encoder.state_dict().items())


@torch.no_grad()
def test_hugging_faces_folders(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    images = torch.randn(2, 3, 64, 64)
    config = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    source = transformers.ResNetModel(config).eval()
    randomise(source)
    source.save_pretrained(tmp_path / "resnet")
    encoder = resnet18(stem="imagenet")
    load_weights(encoder, tmp_path / "resnet")
    wanted = source(images).pooler_output.flatten(1)
    torch.testing.assert_close(encoder.eval()(images), wanted, rtol=0, atol=1e-5)
    config = transformers.ViTConfig(
        hidden_size=192,
        num_hidden_layers=12,
        num_attention_heads=3,
        intermediate_size=768,
        image_size=64,
        patch_size=16,
    )
    vit = transformers.ViTModel(config, add_pooling_layer=False).eval()
    randomise(vit)
    vit.save_pretrained(tmp_path / "vit")
    tiny = timm_backbone("vit_tiny_patch16_224", image_sizes=(64,)).eval()
    load_weights(tiny, tmp_path / "vit")
    wanted = vit(images).last_hidden_state[:, 0]
    # timm's norms have an epsilon of 1e-6, Hugging Face's one of 1e-12
    torch.testing.assert_close(tiny(images), wanted, rtol=0, atol=1e-4)


def test_timms_vits_in_others_checkpoints(tmp_path: Path) -> None:
    source = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=3)
    torch.save({"teacher": {"module.backbone." + k: v for k, v in source.state_dict().items()}}, tmp_path / "dino.pth")
    encoder = timm_backbone("vit_tiny_patch16_224", image_sizes=(64,))
    load_weights(encoder, tmp_path / "dino.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in encoder.state_dict().items())


# --- what does not fit ------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_one_sentence_and_changes_nothing(tmp_path: Path) -> None:
    state = without_fc(theirs())
    encoder = resnet18(stem="imagenet")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    less = {name: value for name, value in state.items() if name != "layer3.1.bn2.bias"}
    cifar = state | {"conv1.weight": torch.ones(64, 3, 3, 3)}
    deeper = under("encoder.", torchvision.models.resnet34().state_dict())
    wider = torchvision.models.resnet50().state_dict()
    for bad, sentence in (
        (less, r"lacks 1 of the 100 weights of resnet18, the first being layer3\.1\.bn2\.bias"),
        (cifar, r"conv1\.weight has the shape \[64, 3, 3, 3\] there and \[64, 3, 7, 7\] here; give --set"),
        (state | {"bn1.bias": torch.full((64,), torch.inf)}, r"bn1\.bias with numbers that are not finite"),
        (deeper, r"a deeper network than resnet18: it has encoder\.layer1\.2"),
        (wider, r"layer1\.0\.conv1\.weight has the shape"),
        ({"a": torch.ones(3)}, "lacks 100 of the 100"),
    ):
        save_file({name: value.contiguous() for name, value in bad.items()}, tmp_path / "bad.safetensors")
        with pytest.raises(InputError, match=sentence) as refused:
            load_weights(encoder, tmp_path / "bad.safetensors", "resnet18")
        assert "\n" not in str(refused.value)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"state_dict": theirs().state_dict(), "hyper_parameters": Payload(marker)}, tmp_path / "evil.ckpt")
    with pytest.raises(InputError, match=r"more than tensors.*save its tensors alone: python -c"):
        load_weights(resnet18(stem="imagenet"), tmp_path / "evil.ckpt")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["absent.pth", "folder", "text.pth", "empty.pth", "text.safetensors", "numbers.pth"])
def test_what_is_no_file_of_weights_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for text in ("text.pth", "text.safetensors"):
        (tmp_path / text).write_text("weights\x1b[31m")
    (tmp_path / "empty.pth").touch()
    torch.save({"a": 3, "b": [torch.ones(2)]}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match=re.escape(name)) as refused:
        load_weights(resnet18(), tmp_path / name)
    assert "\n" not in str(refused.value)


def test_names_from_a_file_give_the_terminal_no_orders(tmp_path: Path) -> None:
    state = theirs().state_dict() | {"\x1b[31m.weight": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    loaded = load_weights(resnet18(stem="imagenet"), tmp_path / "w.pth")
    assert "\x1b" not in str(loaded)
    assert "fc (2)" in str(loaded)
