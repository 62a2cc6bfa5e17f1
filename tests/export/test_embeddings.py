"""Embeddings: the encoder's, in the order of the images, with density and region; what cannot be read is listed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tests.export.made_up import made_run, pictures
from typer.testing import CliRunner

from evensphere import embed, train
from evensphere.cli.main import app
from evensphere.errors import InputError
from evensphere.export.subject import subject_of
from evensphere.gh.harmonizer import anchor_scores
from evensphere.metrics.density import knn_density
from evensphere.recipes.building import revisit
from evensphere.recipes.network import projector_of, trained_method
from evensphere.recipes.recipe import get_recipe
from evensphere.rundir import RunDir
from evensphere.spreadsheet import read_csv

CLI = CliRunner()
SMALL = ("backbone=resnet-small", "backbone.width=4", "backbone.stem=cifar", "views.size=32")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return made_run(tmp_path_factory.mktemp("runs") / "run", *SMALL)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    tiny = ["epochs=2", "backbone.width=4", "batch_size=64"]
    return RunDir(train(get_recipe("digits-lt").set(tiny), tmp_path_factory.mktemp("runs") / "digits"))


def test_parquet_has_a_row_for_each_image(run: RunDir, tmp_path: Path) -> None:
    made = embed(run.path, tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.column_names == ["path", "density", "region", "features"]
    assert table["path"].to_pylist() == run.read_images() == made.locations
    subject = subject_of(run.path)
    assert np.allclose(np.stack(table["features"].to_pylist()), subject.features.numpy(), atol=1e-6)
    assert np.allclose(table["density"].to_numpy(), knn_density(subject.features).numpy(), rtol=1e-3)
    assert table["region"].to_pylist() == [None] * 6
    assert json.loads(table.schema.metadata[b"evensphere"])["encoder"] == "last"


def test_npy_has_a_table_beside_it(run: RunDir, tmp_path: Path) -> None:
    made = embed(run.path, tmp_path / "e.npy", density=False)
    assert np.array_equal(np.load(tmp_path / "e.npy"), made.features.numpy())
    rows = read_csv(tmp_path / "e.csv")
    assert [row["path"] for row in rows] == run.read_images()
    assert {row["density"] for row in rows} == {""}


def test_regions_are_those_of_the_finished_network(digits: RunDir, tmp_path: Path) -> None:
    made = embed(digits.path, tmp_path / "e.parquet")
    assert made.region is not None
    training, _ = revisit(digits, digits.checkpoint_steps()[-1])
    with torch.no_grad():
        embeddings = projector_of(trained_method(digits)).eval()(made.features)
        wanted = anchor_scores((embeddings,), training.harmonizer.anchors)[0].argmax(1)  # type: ignore[arg-type]
    assert torch.equal(made.region, wanted)
    assert len(made.region.unique()) > 1
    assert pq.read_table(tmp_path / "e.parquet")["region"].to_pylist() == wanted.tolist()


def test_other_images_and_unreadable_ones(run: RunDir, tmp_path: Path) -> None:
    others = pictures(tmp_path / "others", count=4, side=40)
    (others / "kind0" / "=torn.png").write_bytes(b"no image")
    done = CLI.invoke(app, ["embed", str(run.path), "--data", str(others), "--out", str(tmp_path / "e.parquet")])
    assert done.exit_code == 0, done.output
    assert "4 images, 16 features each. No regions:" in done.output
    assert "1 could not be read" in done.output
    assert pq.read_table(tmp_path / "e.parquet").num_rows == 4
    (skipped,) = read_csv(tmp_path / "e.skipped.csv")
    assert skipped["path"] == "kind0/=torn.png"
    assert skipped["reason"]
    (others / "kind0" / "=torn.png").unlink()
    embed(run.path, tmp_path / "e.parquet", [str(others)])
    assert not (tmp_path / "e.skipped.csv").exists(), "what another time left is gone"


def test_nothing_of_the_users_is_written_over(run: RunDir, tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 2)
    table = tmp_path / "photos.csv"
    table.write_text("path\n" + "".join(f"{file.relative_to(tmp_path)}\n" for file in tmp_path.rglob("*.png")))
    before = table.read_bytes()
    with pytest.raises(InputError, match=r"would write over .*photos\.csv, which the images come from"):
        embed(run.path, tmp_path / "photos.npy", [str(table)])
    with pytest.raises(InputError, match="would be written over"):
        embed(run.path, tmp_path / "photos.npy", [str(tmp_path / "photos")])
    np.save(images := tmp_path / "x.npy", np.zeros((3, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match=r"x\.npy, which the images come from"):
        embed(run.path, images, [str(images)])
    assert table.read_bytes() == before
    assert np.load(images).shape == (3, 32, 32, 3)
    for _ in range(2):  # what was written before may be written again
        embed(run.path, tmp_path / "e.npy", [str(table)])


def test_a_table_of_an_earlier_time_may_be_the_list_of_images(run: RunDir, tmp_path: Path) -> None:
    """Its header is that of what would be written over it."""
    pictures(tmp_path / "photos", 2)
    places = [file.relative_to(tmp_path) for file in sorted((tmp_path / "photos").rglob("*.png"))]
    for name, header, rest in (("e.csv", "path,density,region", ",,"), ("e.skipped.csv", "path,reason", ",torn")):
        table = tmp_path / name
        table.write_text(f"{header}\n" + "".join(f"{place}{rest}\n" for place in places))
        before = table.read_bytes()
        with pytest.raises(InputError, match=rf"{name}, which the images come from"):
            embed(run.path, tmp_path / "e.npy", [str(table)])
        assert table.read_bytes() == before
        table.unlink()


@pytest.mark.parametrize("out", ["e.parquet", "e.npy"])
def test_a_table_of_somebody_elses_skipped_images_stays(run: RunDir, tmp_path: Path, out: str) -> None:
    (mine := tmp_path / "e.skipped.csv").write_text("file,why I left it out\na.png,blurred\n")
    with pytest.raises(InputError, match=r"e\.skipped\.csv would be written over"):
        embed(run.path, tmp_path / out)
    assert "blurred" in mine.read_text()


def test_one_image_has_no_density(run: RunDir, tmp_path: Path) -> None:
    two = pictures(tmp_path / "two", count=2)
    next(two.rglob("*.png")).write_bytes(b"torn")
    made = embed(run.path, tmp_path / "e.parquet", [str(two)])
    assert made.density.isnan().all()
    assert pq.read_table(tmp_path / "e.parquet")["density"].to_pylist() == [None]


def test_names_that_are_no_text_are_spelled(run: RunDir, tmp_path: Path) -> None:
    others = pictures(tmp_path / "others", count=2)
    picture = next(others.rglob("*.png"))
    try:
        picture.rename(picture.parent.parent / "kind0" / "a\udcff\n.png")
    except OSError:
        pytest.skip("this file system takes no such name")
    embed(run.path, tmp_path / "e.parquet", [str(others)])
    assert r"kind0/a\xff\x0a.png" in pq.read_table(tmp_path / "e.parquet")["path"].to_pylist()


@pytest.mark.parametrize(
    ("out", "sentence"), [("e.csv", r"must end with \.parquet or \.npy"), ("folder.npy", "it is a folder")]
)
def test_what_cannot_be_written_is_one_sentence(run: RunDir, out: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match=sentence):
        embed(run.path, tmp_path / out)
