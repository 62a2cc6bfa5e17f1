"""Every export, used as the printed lines say, gives the encoder's outputs; what cannot be exported is one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.export.made_up import RESNET18, made_run
from torch import Tensor
from typer.testing import CliRunner

from evensphere import export_encoder
from evensphere.cli.main import app
from evensphere.errors import InputError
from evensphere.export import export as exporting
from evensphere.export import hugging_face
from evensphere.export.checks import BadExport, Exported, check_outputs
from evensphere.export.subject import Subject, subject_of
from evensphere.rundir import RunDir

CLI = CliRunner()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made_run(tmp_path_factory.mktemp("stock") / "run", *RESNET18)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    settings = ("backbone=resnet18", "backbone.stem=cifar", "views.size=32")
    return made_run(tmp_path_factory.mktemp("small") / "run", *settings)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made_run(tmp_path_factory.mktemp("vit") / "run", "backbone=timm/vit_tiny_patch16_224", "views.size=32")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    settings = ("backbone=resnet-small", "backbone.stem=cifar", "views.size=32")
    return made_run(tmp_path_factory.mktemp("odd") / "run", *settings)


def used_as_printed(exported: Exported, pixels: Tensor) -> Tensor:
    """What the printed lines make of the pixels."""
    names: dict[str, Any] = {"pixels": pixels}
    with torch.no_grad():
        exec(exported.code, names)
    return torch.as_tensor(names["features"]).detach()


FILES = [
    ("stock", "timm", "e.safetensors"),
    ("stock", "timm", "e.pth"),
    ("stock", "torchvision", "e.pth"),
    ("stock", "torchvision", "e.safetensors"),
    ("stock", "safetensors", "e.safetensors"),
    ("stock", "onnx", "e.onnx"),
    ("small", "timm", "e.pth"),
    ("small", "torchvision", "e.pth"),
    pytest.param("small", "onnx", "e.onnx", marks=pytest.mark.slow),
    ("vit", "timm", "e.safetensors"),
    ("vit", "safetensors", "e.safetensors"),
    pytest.param("vit", "torch-export", "e.pt2", marks=pytest.mark.slow),
    pytest.param("vit", "onnx", "e.onnx", marks=pytest.mark.slow),
    ("odd", "safetensors", "e.safetensors"),
    ("odd", "torch-export", "e.pt2"),
]


@pytest.mark.parametrize(("run", "to", "name"), FILES)
def test_the_printed_lines_give_the_encoders_outputs(
    run: str, to: str, name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: RunDir = request.getfixturevalue(run)
    exported = export_encoder(folder.path, to, tmp_path / name)
    subject = subject_of(folder.path)
    tolerance = 1e-4 if to == "onnx" else 1e-5
    assert exported.apart <= tolerance * max(1, float(subject.features.abs().max()))
    torch.testing.assert_close(used_as_printed(exported, subject.pixels), subject.features, rtol=0, atol=10 * tolerance)
    assert f"6 images of {folder.path.name}-pictures" in exported.images
    assert exported.files[0] == tmp_path / name


@pytest.mark.slow
def test_the_metadata_is_in_every_format(stock: RunDir, tmp_path: Path) -> None:
    found = []
    export_encoder(stock.path, "timm", tmp_path / "e.safetensors")
    with safe_open(tmp_path / "e.safetensors", "pt") as opened:
        found.append(json.loads(opened.metadata()["evensphere"]))
    export_encoder(stock.path, "torchvision", tmp_path / "e.pth")
    found.append(json.loads((tmp_path / "e.pth.json").read_text()))
    export_encoder(stock.path, "torch-export", tmp_path / "e.pt2")
    extra = {"evensphere.json": ""}
    torch.export.load(tmp_path / "e.pt2", extra_files=extra)
    found.append(json.loads(extra["evensphere.json"]))
    export_encoder(stock.path, "mmdet", tmp_path / "mm.pth")
    found.append(json.loads(torch.load(tmp_path / "mm.pth", weights_only=True)["meta"]["evensphere"]))
    export_encoder(stock.path, "detectron2", tmp_path / "d2.pth")
    found.append(json.loads(torch.load(tmp_path / "d2.pth", weights_only=True)["evensphere"]))
    for metadata in found:
        assert metadata["mean"] == [0.485, 0.456, 0.406]
        assert metadata["std"] == [0.229, 0.224, 0.225]
        assert metadata["input_size"] == 64
        assert metadata["interpolation"] == "bilinear"
        assert metadata["num_features"] == 512


@pytest.mark.slow
def test_onnx_says_what_it_needs(stock: RunDir, tmp_path: Path) -> None:
    import onnx

    export_encoder(stock.path, "onnx", tmp_path / "e.onnx")
    model = onnx.load(tmp_path / "e.onnx")
    properties = {one.key: one.value for one in model.metadata_props}
    assert json.loads(properties["mean"]) == [0.485, 0.456, 0.406]
    assert properties["input_size"] == "64"
    (pixels,) = model.graph.input
    assert [dim.dim_value for dim in pixels.type.tensor_type.shape.dim] == [0, 3, 64, 64], "a batch of any size"


def test_torchvisions_detectors_take_the_export(stock: RunDir, tmp_path: Path) -> None:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops import FrozenBatchNorm2d

    export_encoder(stock.path, "torchvision", tmp_path / "e.pth")
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=FrozenBatchNorm2d).eval()
    backbone.body.load_state_dict(torch.load(tmp_path / "e.pth", weights_only=True), strict=True)
    subject = subject_of(stock.path)
    with torch.no_grad():
        last = list(backbone.body(subject.pixels).values())[-1]
    torch.testing.assert_close(last.mean((2, 3)), subject.features, rtol=0, atol=1e-5)


def test_detectron2s_names_are_those_of_its_own_converter(stock: RunDir, tmp_path: Path) -> None:
    """Its tool for torchvision's ResNets, in words: res2 to res5, norms inside convolutions, one shortcut."""
    export_encoder(stock.path, "detectron2", tmp_path / "d2.pth")
    names = set(torch.load(tmp_path / "d2.pth", weights_only=True)["model"])
    assert {"stem.conv1.weight", "stem.conv1.norm.running_mean", "res2.0.conv1.weight"} <= names
    assert {"res3.0.shortcut.weight", "res3.0.shortcut.norm.bias", "res5.1.conv2.norm.weight"} <= names
    assert not [name for name in names if "layer" in name or "downsample" in name or ".bn" in name]


def test_hugging_face_reads_the_folder(stock: RunDir, tmp_path: Path) -> None:
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    exported = export_encoder(stock.path, "huggingface", tmp_path / "hf")
    assert exported.apart <= 1e-5
    subject = subject_of(stock.path)
    processor: Any = AutoImageProcessor.from_pretrained(tmp_path / "hf")  # type: ignore[no-untyped-call]
    picture = Image.open(sorted(stock.path.with_name("run-pictures").rglob("*.png"))[0]).convert("RGB")
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    levels = (pixels - subject.pixels[:1]).abs() * torch.tensor(subject.views.std)[:, None, None] * 255
    assert float(levels.max()) < 2.5, "the same pixels up to rounding"
    model = AutoModel.from_pretrained(tmp_path / "hf").eval()
    with torch.no_grad():
        assert model(pixel_values=subject.pixels).pooler_output.flatten(1).shape == (6, 512)
    recipe = json.loads((tmp_path / "hf" / "evensphere.json").read_text())["run"]
    assert "path" not in recipe["data"]["options"], "where things lie on a machine is nobody's business"


def test_what_an_earlier_export_knew_of_pixels_goes(stock: RunDir, tmp_path: Path) -> None:
    export_encoder(stock.path, "huggingface", tmp_path / "hf")
    (tmp_path / "hf" / "preprocessor_config.json").write_text("{}")
    hugging_face._write(tmp_path / "hf", {"config.json": {}}, {})
    assert not (tmp_path / "hf" / "preprocessor_config.json").exists()


def test_hugging_face_takes_resnets_of_any_width(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "backbone=resnet-small", "backbone.stem=imagenet", "views.size=64")
    export_encoder(run.path, "huggingface", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert (config["hidden_sizes"], config["depths"], config["embedding_size"]) == ([16, 32, 64], [1, 1, 1], 16)


def test_timms_models_are_read_by_timm_and_transformers(vit: RunDir, tmp_path: Path) -> None:
    import timm

    exported = export_encoder(vit.path, "huggingface", tmp_path / "hf")
    assert exported.by.startswith("transformers")
    model = timm.create_model(f"local-dir:{tmp_path / 'hf'}", pretrained=True, num_classes=0).eval()
    subject = subject_of(vit.path)
    with torch.no_grad():
        torch.testing.assert_close(model(subject.pixels), subject.features, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_torchvisions_vits_take_timms(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", "backbone=timm/vit_base_patch32_224", "views.size=64")
    exported = export_encoder(run.path, "torchvision", tmp_path / "vit.safetensors")
    assert "vit_b_32" in exported.by
    assert "encoder.layers.encoder_layer_0.self_attention.in_proj_weight" in load_file(tmp_path / "vit.safetensors")


@pytest.mark.slow
def test_images_of_one_channel_go_out_too(tmp_path: Path) -> None:
    grey = ("views=digits", "data.channels=1", "views.size=64", "backbone=resnet18", "backbone.stem=imagenet")
    run = made_run(tmp_path / "run", *grey, "views.mean=[0.3]", "views.std=[0.4]")
    for to, name in (("timm", "e.pth"), ("torchvision", "e.pth"), ("onnx", "e.onnx"), ("huggingface", "hf")):
        assert export_encoder(run.path, to, tmp_path / name).apart < 1e-4


def test_without_the_images_it_is_compared_on_noise_and_says_so(tmp_path: Path) -> None:
    import shutil

    run = made_run(tmp_path / "run", *RESNET18)
    shutil.rmtree(tmp_path / "run-pictures")
    exported = export_encoder(run.path, "timm", tmp_path / "e.pth")
    assert "noise (the run's own are gone)" in str(exported)


@pytest.mark.parametrize(
    ("run", "to", "name", "sentence"),
    [
        ("small", "huggingface", "hf", "takes ResNets like torchvision's.*for small images.*backbone.stem=imagenet"),
        ("small", "detectron2", "e.pth", "takes ResNets like torchvision's"),
        ("vit", "mmdet", "e.pth", "takes ResNets like torchvision's"),
        ("vit", "torchvision", "e.pth", "torchvision has no model vit_tiny_patch16_224"),
        ("odd", "timm", "e.pth", "no stock model of the shape of resnet-small"),
        ("odd", "torchvision", "e.pth", "no stock model of the shape of resnet-small"),
        ("stock", "timn", "e.pth", "Unknown target 'timn'; did you mean 'timm'"),
        ("stock", "onnx", "e.pth", r"must end with \.onnx"),
        ("stock", "timm", "e", r"must end with \.safetensors or"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    run: str, to: str, name: str, sentence: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: RunDir = request.getfixturevalue(run)
    with pytest.raises(InputError, match=sentence) as refused:
        export_encoder(folder.path, to, tmp_path / name)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / name).exists()


@pytest.fixture
def never_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written gives other outputs than what it is held against."""
    real = subject_of

    def another(*given: Any) -> Subject:
        from dataclasses import replace

        subject = real(*given)
        return replace(subject, features=subject.features + 2e-5 * subject.features.abs().max())

    monkeypatch.setattr(exporting, "subject_of", another)


@pytest.mark.usefixtures("never_the_encoder")
def test_an_export_that_is_not_the_encoder_is_removed(stock: RunDir, tmp_path: Path) -> None:
    for to, name in (("timm", "e.pth"), ("huggingface", "hf")):
        with pytest.raises(BadExport, match="of no use and was removed"):
            export_encoder(stock.path, to, tmp_path / name)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


@pytest.mark.usefixtures("never_the_encoder")
@pytest.mark.parametrize(("to", "name"), [("safetensors", "e.safetensors"), ("mmdet", "e.pth")])
def test_of_an_export_that_is_removed_nothing_else_goes(stock: RunDir, tmp_path: Path, to: str, name: str) -> None:
    (mine := tmp_path / f"{name}.json").write_text("notes of my own")
    with pytest.raises(BadExport, match="of no use and was removed"):
        export_encoder(stock.path, to, tmp_path / name)
    assert list(tmp_path.iterdir()) == [mine]


def test_outputs_that_are_no_numbers_are_not_the_encoders(stock: RunDir) -> None:
    subject = subject_of(stock.path)
    for number in (float("nan"), float("inf")):
        wrong = torch.full_like(subject.features, number)
        with pytest.raises(BadExport, match="from the encoder's"):
            check_outputs(subject, lambda pixels, wrong=wrong: wrong[: len(pixels)], "nobody")  # type: ignore[misc]


def test_the_command_says_what_was_checked_and_how_to_use_it(stock: RunDir, tmp_path: Path) -> None:
    out = str(tmp_path / "e.pth")
    done = CLI.invoke(app, ["export", str(stock.path), "--to", "torchvision", "--out", out])
    assert done.exit_code == 0, done.output
    assert "compared on 6 images of run-pictures" in done.output
    assert "model.fc = torch.nn.Identity()" in done.output
    assert f"Written: {out}, {out}.json" in done.output


def test_an_unfinished_run_is_one_sentence(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", *RESNET18)
    run.encoder_file.unlink()
    with pytest.raises(InputError, match="no finished encoder"):
        export_encoder(run.path, "timm", tmp_path / "e.pth")
