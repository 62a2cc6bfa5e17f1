"""From a run or a folder to findings: on a digits run, on image files before training, and on what is not usable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from evensphere.data.source import ArraySource, Splits
from evensphere.diagnosis.diagnose import diagnose
from evensphere.diagnosis.finding import Diagnosis, Finding
from evensphere.errors import InputError
from evensphere.recipes.images import splits_of
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

TINY = ["epochs=4", "backbone.width=4", "batch_size=64", "evaluate_every=4 epochs", "snapshot_every=1 epoch"]


def named(diagnosis: Diagnosis) -> dict[str, Finding]:
    found = {finding.name: finding for finding in diagnosis.findings}
    assert len(found) == len(diagnosis.findings)
    return found


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(get_recipe("digits-lt").set(TINY), tmp_path_factory.mktemp("runs") / "gh")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "gh"))


def test_a_run_is_looked_at_from_end_to_end(run: Path) -> None:
    diagnosis = diagnose(run)
    found = named(diagnosis)
    assert found.keys() == {
        *("stopped", "run-length", "loss", "sinkhorn", "collapse", "neighbourhoods", "density", "detail", "trend"),
        *("region-sizes", "skew", "anchors", "harmonization"),
    }
    assert found["run-length"].level == "warning", "24 steps are too few"
    assert found["stopped"].level == "ok"
    assert "hardly begun" in found["collapse"].sentence
    assert [one["epoch"] for one in found["collapse"].numbers["checkpoints"]] == [1, 2, 3, 4]
    assert "24 steps are too few" in found["harmonization"].sentence
    written = json.loads((run / "diagnosis.json").read_text())
    assert written == json.loads(json.dumps(diagnosis.to_json()))
    page = (run / "diagnosis.html").read_text()
    assert page.count("<section") == len(diagnosis.findings)
    assert page.count("data:image/png") == sum(finding.chart is not None for finding in diagnosis.findings) >= 6
    assert "http" not in page.replace("data:image", "")


def test_labels_change_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = diagnose(run).to_json()

    def mislabelled(recipe: Recipe) -> Splits:
        splits = splits_of(recipe)
        images, labels = splits.pretrain, splits.pretrain.labels()
        assert isinstance(images, ArraySource)
        assert labels is not None
        return splits._replace(pretrain=ArraySource(images.name, images.images, labels.flip(0), images.class_names))

    monkeypatch.setattr("evensphere.diagnosis.look.splits_of", mislabelled)
    found = diagnose(run).to_json()
    for one, other in zip(found["findings"], expected["findings"], strict=True):
        if one["name"] != "density":  # which says what the images are called
            assert one == other


def test_a_run_whose_weights_are_no_numbers_is_an_alarm_and_nothing_more(run: Path) -> None:
    folder = RunDir(run)
    file = folder.checkpoint_file(folder.checkpoint_steps()[-1])
    state = torch.load(file, weights_only=True)
    del state["sha256"]  # which would no longer be right
    state["model"]["method.encoder.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, file)
    found = named(diagnose(run))
    assert found["finite"].level == "alarm"
    assert "neighbourhoods" not in found


def test_a_collapsed_run_is_an_alarm(run: Path) -> None:
    folder = RunDir(run)
    file = folder.checkpoint_file(folder.checkpoint_steps()[-1])
    state = torch.load(file, weights_only=True)
    del state["sha256"]  # which would no longer be right
    for name, tensor in state["model"].items():
        if name.startswith("method.projector") and tensor.is_floating_point():
            tensor.mul_(0.0)
    torch.save(state, file)
    diagnosis = diagnose(run)
    assert named(diagnosis)["collapse"].level == "alarm"
    assert diagnosis.worst == "alarm"
    assert diagnosis.by_urgency()[0].name == "collapse"


def test_a_run_without_checkpoints_is_looked_at_as_it_ended(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    found = named(diagnose(run))
    assert "trend" not in found, "one look is no trend"
    assert "k-means" in found["region-sizes"].sentence, "without a projector there are no embeddings to hold to anchors"


def test_a_run_that_has_hardly_begun(run: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    (run / "encoder.safetensors").unlink()
    (run / "metrics.jsonl").write_text("")
    found = named(diagnose(run))
    assert found["unseen"].level == "info"
    assert found["run-length"].numbers["done"] == 0


# --- images before training -------------------------------------------------------------------------------------------


def write_photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for i in range(count):
        pixels = generator.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 40)).save(folder / f"{i:03}.png")
    return folder


def test_a_folder_of_images_before_training(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 120)
    (photos / "broken.png").write_bytes(b"no image")
    diagnosis = diagnose(str(photos), out=str(tmp_path / "out"))
    found = named(diagnosis)
    assert diagnosis.looked_at == 120
    assert found.keys() == {
        *("features", "neighbourhoods", "density", "region-sizes", "skew", "plan-length", "harmonization"),
    }
    assert "not by what they show" in found["features"].sentence
    assert "Not reliable here" in found["neighbourhoods"].sentence
    assert "Nobody can say" in found["harmonization"].sentence or "too few" in found["harmonization"].sentence
    assert set(found["density"].numbers["sparsest"]) <= {f"{i:03}.png" for i in range(120)}
    assert (tmp_path / "out" / "diagnosis.html").stat().st_size > 10_000
    assert sorted(file.name for file in photos.iterdir())[-1] == "broken.png", "nothing is written to the images"


def test_images_that_are_all_the_same_are_an_alarm(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        Image.new("RGB", (40, 40), (90, 20, 20)).save(photos / f"{i}.png")
    diagnosis = diagnose(photos)
    assert [finding.name for finding in diagnosis.findings] == ["features", "alike"]
    assert diagnosis.worst == "alarm"


def test_fewer_images_than_neighbours(tmp_path: Path) -> None:
    found = named(diagnose(write_photos(tmp_path / "photos", 5)))
    assert found["few-images"].level == "warning"
    assert "density" not in found


def test_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two"):
        diagnose(write_photos(tmp_path / "photos", 1))


def test_weights_of_a_timm_model_and_of_a_run(run: Path, tmp_path: Path) -> None:
    photos, file = write_photos(tmp_path / "photos", 8), tmp_path / "resnet10t.safetensors"
    model = timm.create_model("test_resnet", num_classes=7)
    save_file(model.state_dict(), file)
    diagnosis = diagnose(photos, backbone="test_resnet", weights=str(file), images=6)
    found = named(diagnosis)
    assert diagnosis.looked_at == 6
    assert "test_resnet" in found["features"].sentence
    assert "collapse" in found
    with pytest.raises(InputError, match="add --backbone"):
        diagnose(photos, weights=file)
    with pytest.raises(InputError, match="nothing is downloaded"):
        diagnose(photos, backbone="test_resnet")
    with pytest.raises(InputError, match="give the name of the model"):
        diagnose(photos, backbone="test_vit", weights=file)
    with pytest.raises(InputError, match=r"000\.png cannot be read"):
        diagnose(photos, backbone="test_resnet", weights=photos / "000.png")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        diagnose(photos, weights=photos / "000.png")
    with pytest.raises(InputError, match="has a network of its own"):
        diagnose(run, weights=file)
    grey = tmp_path / "grey"
    grey.mkdir()
    for i in range(6):
        Image.open(photos / f"{i:03}.png").convert("L").save(grey / f"{i}.png")
    own = named(diagnose(grey, weights=run / "encoder.safetensors"))
    assert "encoder.safetensors" in own["features"].sentence
