"""What is rare is found, once each; junk stays apart; degenerate collections; the command."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.curation.collections_made_up import clusters, look_of
from typer.testing import CliRunner

from evensphere.cli.main import app
from evensphere.curation.look import look_at
from evensphere.curation.rare import choose_rare, find_rare
from evensphere.data.augment import Views
from evensphere.data.source import ArraySource
from evensphere.errors import InputError
from evensphere.metrics.density import nearest_neighbours
from evensphere.recipes.frozen import Frozen, frozen
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = get_recipe("digits-lt", "base").set(["epochs=2", "backbone.width=8", "data.largest=40", "monitor="])
    return train(recipe, tmp_path_factory.mktemp("runs") / "digits")


def test_a_small_wide_cluster_is_found_before_common_things() -> None:
    common, _ = clusters([150, 150], spread=0.05)
    rare = torch.nn.functional.normalize(
        torch.eye(16)[[5] * 8] + 0.1 * torch.randn(8, 16, generator=torch.Generator().manual_seed(3)), dim=1
    )
    found = choose_rare(look_of(torch.cat([common, rare])), budget=4)
    assert len(found.rare) == 4
    assert sum(find.number >= 300 for find in found.rare) >= 2
    assert found.rare[0].number >= 300
    scores = [find.score for find in found.rare]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 2


def test_no_two_of_a_burst_and_no_close_neighbours_while_others_are_left() -> None:
    points, _ = clusters([100, 100], spread=0.2)
    burst = points[-1:].expand(6, 16) + 0.001 * torch.arange(96).view(6, 16)
    groups = torch.cat([torch.arange(200), torch.full((6,), 199)])
    look = look_of(torch.cat([points, burst]), groups)
    found = choose_rare(look, budget=30)
    chosen = [find.number for find in found.rare]
    assert len({int(groups[i]) for i in chosen}) == 30
    nearest = nearest_neighbours(look.features[look.leaders], 3).index.tolist()
    assert not [(i, j) for i in chosen for j in nearest[i] if j in chosen]
    everything = choose_rare(look, budget=1000)
    assert len(everything.rare) == 200, "more than there are different images cannot be given"
    assert any("6 near-duplicates" in find.why for find in everything.rare)


@given(st.integers(0, 1000), st.integers(1, 50))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_images_does_not_matter(seed: int, budget: int) -> None:
    points, _ = clusters([30, 10], spread=0.3)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    found = choose_rare(look_of(points), budget)
    other = choose_rare(look_of(points[order]), budget)
    assert [find.number for find in found.rare] == [int(order[find.number]) for find in other.rare]
    assert len(found.rare) == min(budget, 40)


def test_what_shows_nothing_is_set_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 16, 64), generator=generator).byte()
    images[7] = 130  # blank
    images[8] = torch.where(torch.rand(3, 16, 64, generator=generator) < 0.5, 124, 134).byte()  # faint
    images[11, :, 4:] = 128  # cut short
    images[12, :, 14:] = 0  # a narrow bar, as some cameras draw
    images[9] = 10
    images[9, :, 0, :3] = 250  # a dot
    encoder = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten())
    look = look_at(Frozen(ArraySource("noise", images), encoder, Views(8), "an average", None))
    found = choose_rare(look, budget=100)
    assert {find.number: find.why.split(" (")[0] for find in found.junk} == {
        7: "blank",
        8: "hardly any contrast",
        9: "hardly any detail",
        11: "the lower 75 % are of one colour",
    }
    assert not {7, 8, 9, 11} & {find.number for find in found.rare}
    assert len(found.rare) == 56


def test_a_collection_that_is_faint_throughout_is_not_junk() -> None:
    look = look_of(clusters([30, 10])[0])
    look.contrast[:] = 4.0
    look.aspect[:] = 6.0
    assert not choose_rare(look, budget=5).junk
    look.aspect[3] = 30.0
    assert [(find.number, find.why) for find in choose_rare(look, budget=5).junk] == [(3, "30 times as long as wide")]


def test_what_is_alone_in_other_company_is_set_apart_only_where_company_means_something() -> None:
    points, _ = clusters([80, 80, 80], spread=0.05)
    first, second = points.clone(), points.clone()
    first[5] = torch.nn.functional.normalize(-torch.ones(16) + 0.9 * torch.eye(16)[0], dim=0)
    second[5] = torch.nn.functional.normalize(-torch.ones(16) + 0.9 * torch.eye(16)[1], dim=0)
    found = choose_rare(look_of(points, views=(first, second)), budget=5)
    assert [find.number for find in found.junk] == [5]
    assert found.look.verdict.startswith("Reliable here")
    shuffled = points[torch.randperm(240, generator=torch.Generator().manual_seed(0))]
    unreliable = choose_rare(look_of(points, views=(first, shuffled)), budget=5)
    assert not unreliable.junk
    assert unreliable.look.verdict.startswith("Not reliable here")


@pytest.mark.parametrize("feature", [torch.zeros(16), torch.eye(16)[0]], ids=["dead", "constant"])
def test_an_encoder_that_tells_nothing_apart_is_not_reliable(feature: torch.Tensor) -> None:
    points = feature.repeat(300, 1)
    assert look_of(points).verdict.startswith("Not reliable here")
    some = clusters([150, 150])[0]
    some[:100] = feature
    assert look_of(some).consistency is not None
    assert (look_of(some).consistency[:100] == 0).all()  # type: ignore[index]


def test_degenerate_collections() -> None:
    one = choose_rare(look_of(torch.eye(4)[:1]), budget=5)
    assert [find.number for find in one.rare] == [0]
    assert one.rare[0].why == "there is nothing to compare it with"
    assert one.look.verdict.startswith("Too few images (1 different ones)")
    constant = choose_rare(look_of(torch.eye(4)[[0] * 30]), budget=5)
    assert [find.score for find in constant.rare] == [1.0] * 5
    look = look_of(clusters([30, 10])[0])
    failed = dataclasses.replace(look, finite=torch.arange(40) != 2)
    found = choose_rare(failed, budget=100)
    assert [(find.number, find.why) for find in found.junk] == [(2, "the encoder fails at it")]
    assert len(found.rare) == 39


def test_an_encoder_that_fails_at_everything_is_an_error() -> None:
    class Diverged(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full((len(x), 4), torch.nan)

    source = ArraySource("noise", torch.zeros(5, 3, 8, 8).byte())
    with pytest.raises(InputError, match="no finite features for any image"):
        look_at(Frozen(source, Diverged(), Views(8), "it", None))


# --- a run ------------------------------------------------------------------------------------------------------------


def test_the_command_writes_lists_sheets_and_pictures(run: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["rare", str(run), "--out", str(tmp_path / "rare"), "--budget", "20"])
    assert done.exit_code == 0, done.output
    assert "eliable here" in done.output
    rows = list(csv.DictReader((tmp_path / "rare" / "rare.csv").read_text().splitlines()))
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]
    found, source = find_rare(run, 20), frozen(run).source
    assert [row["path"] for row in rows] == [found.look.locations[find.number] for find in found.rare]
    with Image.open(tmp_path / "rare" / rows[0]["picture"]) as first:
        assert torch.equal(torch.from_numpy(np.asarray(first)[..., 0].copy()), source.read(found.rare[0].number)[0])
    with Image.open(tmp_path / "rare" / "rare.png") as sheet:
        assert sheet.size[0] > 1000
    assert (tmp_path / "rare" / "reliability.txt").read_text().strip() == found.look.verdict
    assert not (tmp_path / "rare" / "junk.png").exists()


def test_the_same_seed_gives_the_same_list(run: Path) -> None:
    assert find_rare(run, 15).rare == find_rare(run, 15).rare


def test_mistakes_are_sentences(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="budget of 0"):
        find_rare(run, 0)
    with pytest.raises(InputError, match="is not a run folder"):
        find_rare(tmp_path)


def test_files_are_named_and_not_exported(run: Path, tmp_path: Path) -> None:
    for i in range(25):
        pixels = torch.randint(0, 256, (8, 8), generator=torch.Generator().manual_seed(i)).byte()
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / f"{i:02}.png")
    arguments = ["rare", str(run), "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--budget", "3"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    header, *rows = list(csv.reader((tmp_path / "out" / "rare.csv").read_text().splitlines()))
    assert header == ["rank", "path", "score", "region", "region_images", "why"]
    assert all((tmp_path / "photos" / row[1]).is_file() for row in rows)
    assert not (tmp_path / "out" / "pictures").exists()
