"""Subsets: exact sizes, no image twice, weights that sum, bursts, degenerate collections, the command."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from tests.curation.collections_made_up import clusters, look_of
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.curation.curate import choose_evenly, curate, far_apart
from evensphere.data.lists import read_list
from evensphere.errors import InputError
from evensphere.recipes.frozen import frozen


def class_counts(which: torch.Tensor, chosen: torch.Tensor) -> list[int]:
    return torch.bincount(which[chosen], minlength=int(which.max()) + 1).tolist()


def test_rare_clusters_keep_more_of_themselves() -> None:
    points, which = clusters([300, 60, 20, 10], spread=0.1)
    found = choose_evenly(look_of(points), 80, seed=0)
    counts = class_counts(which, found.chosen)
    assert counts[3] > 5, "at random it would be 2"
    assert counts[0] < 45, "at random it would be 62"
    assert found.flatness.after > 1.2 * found.flatness.random
    assert "flatter than a random one" in found.verdict


@given(st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_sizes_are_exact_and_weights_sum(size: int, seed: int) -> None:
    look = look_of(clusters([30, 10], spread=0.3)[0])
    found = choose_evenly(look, size, [6, 2], seed)
    assert len(found.chosen) == len(set(found.chosen.tolist())) == size
    assert float(found.weights.sum()) == pytest.approx(size)
    assert bool((found.weights > 0).all())
    assert float(found.weights.max()) <= 1
    assert torch.equal(found.chosen, choose_evenly(look, size, [6, 2], seed).chosen)


def test_the_order_of_the_images_does_not_matter() -> None:
    points, _ = clusters([60, 20], spread=0.3)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    weights = choose_evenly(look_of(points), 30, seed=0).weights
    assert torch.allclose(choose_evenly(look_of(points[order]), 30, seed=0).weights, weights[order])


def test_a_burst_weighs_as_much_as_one_image() -> None:
    points, _ = clusters([40, 40], spread=0.2)
    groups = torch.cat([torch.arange(80), torch.full((20,), 79)])
    look = look_of(torch.cat([points, points[79:].expand(20, 16)]), groups)
    found = choose_evenly(look, 40, [2], seed=0)
    assert float(found.weights[79:].sum()) == pytest.approx(float(found.weights[40]), rel=0.2)
    assert float(found.weights[79:].sum()) <= 1


def test_what_the_encoder_fails_at_is_neverlisted_images() -> None:
    look = look_of(clusters([30, 10])[0])
    failed = dataclasses.replace(look, finite=torch.arange(40) % 4 != 0)
    found = choose_evenly(failed, 30)
    assert found.chosen.tolist() == [i for i in range(40) if i % 4]
    assert float(found.weights[::4].sum()) == 0


def test_degenerate_collections() -> None:
    one = choose_evenly(look_of(torch.eye(4)[:1]), 1)
    assert one.chosen.tolist() == [0]
    constant = choose_evenly(look_of(torch.eye(4)[[0] * 40]), 7)
    assert len(constant.chosen) == 7
    assert constant.weights.tolist() == pytest.approx([7 / 40] * 40)
    assert "no flatter than a random one" in constant.verdict


def test_mistakes_are_sentences() -> None:
    look = look_of(clusters([30, 10])[0])
    for size in (0, 41):
        with pytest.raises(InputError, match=f"subset of {size} images was asked for; give 1 to 40"):
            choose_evenly(look, size)
    for levels in ([], [2, 6], [3, 3], [4, 0]):
        with pytest.raises(InputError, match="numbers of clusters that descend"):
            choose_evenly(look, 5, levels)


def test_points_far_apart_reach_every_cluster() -> None:
    points, which = clusters([200, 20, 3, 1, 1], spread=0.05)
    assert sorted(which[far_apart(points, 5, seed=0)].tolist()) == [0, 1, 2, 3, 4]


# --- of files, without a run ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 dark images and 8 bright ones."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(48):
        noise = torch.randint(0, 90, (40, 40, 3), generator=torch.Generator().manual_seed(i))
        (folder / ("bright" if i % 6 == 0 else "dark")).mkdir(exist_ok=True)
        name = f"{'bright' if i % 6 == 0 else 'dark'}/{i:02}.png"
        Image.fromarray((noise + 160 * (i % 6 == 0)).byte().numpy()).save(folder / name)
    return folder


def test_the_command_leaves_a_list_that_trains(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "list"
    done = CliRunner().invoke(app, ["curate", str(photos), "--size", "16", "--out", str(out), "--level", "2"])
    assert done.exit_code == 0, done.output
    assert "effective cells" in done.output
    listed = read_list(out / "list.txt").paths
    assert len(listed) == 16
    assert sum(path.startswith("bright") for path in listed) == 8, "both clusters give the same"
    rows = list(csv.DictReader((out / "weights.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(16)
    card = json.loads((out / "card.json").read_text())
    assert (card["images"], card["chosen"], card["levels"]) == (48, 16, [2])
    assert card["verdict"] in done.output
    with Image.open(out / "flatness.png") as picture:
        assert picture.size[0] > 500
    from evensphere.recipes.images import listed_images, splits_of
    from evensphere.recipes.recipe import get_recipe, with_data

    recipe = with_data(get_recipe("folder"), str(photos)).set([f"images={out / 'list.txt'}"])
    assert len(listed_images(splits_of(recipe).pretrain, recipe.images)) == 16


def test_other_peoples_weights_are_used(photos: Path, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t", num_classes=2).state_dict(), tmp_path / "w.safetensors")
    seen = frozen(photos, backbone="resnet10t", weights=tmp_path / "w.safetensors")
    assert seen.made_by == "resnet10t with w.safetensors"
    assert seen.views.size == 176
    with pytest.raises(InputError, match="go together"):
        curate(photos, 5, backbone="resnet10t")
