"""The map of a run: every rare image on it, regions as GH counts them, no label seen, the same every time."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.data.source import ArraySource, Splits
from evensphere.errors import InputError
from evensphere.metrics.density import density_deciles, knn_density
from evensphere.recipes import mapping
from evensphere.recipes.building import revisit
from evensphere.recipes.images import splits_of
from evensphere.recipes.mapping import chosen_images, draw_map, ends
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.report.record import read_run
from evensphere.rundir import RunDir

SMALL = ["epochs=4", "batch_size=32", "backbone.width=8", "data.largest=40", "monitor="]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = train(get_recipe("digits-lt").set(SMALL), tmp_path_factory.mktemp("runs") / "digits")
    draw_map(folder)
    return folder


def content_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "map.json").read_text())
    return found


def test_every_image_is_on_it_sparsest_first(run: Path) -> None:
    content = content_of(run)
    training, splits = revisit(RunDir(run), RunDir(run).checkpoint_steps()[-1])
    source = splits.pretrain
    assert content["images"] == len(content["names"]) == len(source)
    with torch.inference_mode():
        training.method.eval()
        images = training.views.plain(torch.stack([source.read(i) for i in range(len(source))]))
        density = knn_density(training.method.encoder(images).float())
    place = {source.location(i): i for i in range(len(source))}
    order = [place[name] for name in content["names"]]
    torch.testing.assert_close(density[order], density.sort().values, atol=1e-3, rtol=1e-3)
    assert sum(a != b for a, b in zip(content["tenth"], density_deciles(density)[order].tolist(), strict=True)) <= 4
    assert content["classes"] == list(map(str, range(10)))
    labels = source.labels()
    assert labels is not None
    assert content["label"] == labels[order].tolist()


def test_regions_are_those_that_pi_counts(run: Path) -> None:
    content = content_of(run)
    prior = torch.tensor(read_run(run).populations[-1]["prior"])
    sizes = torch.tensor(content["region_images"])
    assert len(sizes) == len(prior)
    torch.testing.assert_close(sizes / sizes.sum(), prior, atol=1e-6, rtol=0)
    assert torch.equal(torch.bincount(torch.tensor(content["region"]), minlength=len(sizes)), sizes)


def test_pictures_are_of_their_images(run: Path) -> None:
    content = content_of(run)
    _, splits = revisit(RunDir(run), RunDir(run).checkpoint_steps()[-1])
    place = {splits.pretrain.location(i): i for i in range(len(splits.pretrain))}
    assert len(content["thumbnails"]) == len(content["names"])
    for here in (0, 5, len(content["names"]) - 1):
        picture = Image.open(io.BytesIO(base64.b64decode(content["thumbnails"][str(here)]))).convert("L")
        pixels = splits.pretrain.read(place[content["names"][here]])[0].float()
        shown = torch.from_numpy(np.array(picture)).float()
        assert float(torch.corrcoef(torch.stack([pixels.flatten(), shown.flatten()]))[0, 1]) > 0.95


def test_it_is_the_same_every_time_and_sees_no_label(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (run / "map.json").read_bytes()
    draw_map(run)
    assert (run / "map.json").read_bytes() == before

    def relabelled(recipe: Recipe) -> Splits:
        splits = splits_of(recipe)
        source = splits.pretrain
        assert isinstance(source, ArraySource)
        labels = source.labels()
        assert labels is not None
        other = ArraySource(source.name, source.images, labels.flip(0), source.class_names, source.numbers)
        return splits._replace(pretrain=other)

    monkeypatch.setattr(mapping, "splits_of", relabelled)
    draw_map(run)
    changed = content_of(run)
    (run / "map.json").write_bytes(before)
    assert [key for key, value in json.loads(before).items() if changed[key] != value] == ["label"]


def test_it_is_what_the_report_reads(run: Path) -> None:
    record = read_run(run)
    assert record.problems == []
    assert record.image_map is not None
    assert record.image_map.names == content_of(run)["names"]


def test_the_sparsest_are_always_chosen() -> None:
    regions = torch.tensor([0] * 4000 + [1] * 3 + [2] * 1997)
    chosen = chosen_images(6000, regions, 1200, seed=0)
    assert len(chosen) == len(chosen.unique()) == 1200
    assert torch.equal(chosen, chosen.sort().values)
    assert set(range(1000)) <= set(chosen.tolist())
    assert set(range(5952, 6000)) <= set(chosen.tolist())
    assert {4000, 4001, 4002} <= set(chosen.tolist()), "the smallest region"
    assert not torch.equal(chosen, chosen_images(6000, regions, 1200, seed=1)), "the rest is drawn"
    assert torch.equal(chosen_images(10, None, 1200, seed=0), torch.arange(10))
    assert ends([5, 0, 3, 9, 1, 7, 8, 6, 2, 4, 10, 11]) == [4, 8, 2, 9, 0, 11, 10, 3, 6, 5]


def test_fewer_images_than_there_are(run: Path) -> None:
    before = (run / "map.json").read_bytes()
    draw_map(run, images=50)
    content = content_of(run)
    assert len(content["names"]) == 50
    assert content["names"] == json.loads(before)["names"][:50]
    assert content["images"] > 50
    (run / "map.json").write_bytes(before)


def test_mistakes_are_sentences(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="map = 0 was given"):
        draw_map(run, images=0)
    with pytest.raises(InputError, match="map = 20001 was given; it takes a whole number from 1 to 20,000"):
        draw_map(run, images=20_001)
    with pytest.raises(InputError, match="is not a run folder"):
        draw_map(tmp_path)
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.json").write_bytes((run / "recipe.json").read_bytes())
    with pytest.raises(InputError, match=r"encoder"):
        draw_map(unfinished)


def test_photos_of_many_sizes_without_labels(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    generator = torch.Generator().manual_seed(0)
    for i in range(24):
        shade = (torch.rand(40 + i, 30 + 2 * i, 3, generator=generator) * 255).byte().numpy()
        Image.fromarray(shade).save(photos / f"{i:02d}.png")
    small = ["epochs=2", "batch_size=8", "backbone=resnet18", "backbone.width=8", "views.size=32", "harmonizer=none"]
    arguments = [argument for setting in small for argument in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["train", "folder", "--data", str(photos), "--out", str(tmp_path / "run"), "--arm", "base", *arguments]
    )
    assert done.exit_code == 0, done.output
    content = content_of(tmp_path / "run")
    assert sorted(content["names"]) == [f"{i:02d}.png" for i in range(24)]
    assert not {"label", "classes", "region"} & set(content)
    (tmp_path / "run" / "map.json").unlink()
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--map"])
    assert done.exit_code == 0, done.output
    assert content_of(tmp_path / "run") == content
    assert 'id="maps"' in (tmp_path / "run" / "report.html").read_text()
