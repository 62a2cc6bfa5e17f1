"""Tables of measures: what they say equals what metrics say, each measure is made once, and pages need no weights."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evensphere.data.augment import Views
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import extract
from evensphere.errors import InputError
from evensphere.metrics.bank import FeatureBank
from evensphere.metrics.geometry import class_centroids, inter_class_uniformity, neighborhood_uniformity
from evensphere.metrics.signals import effective_number
from evensphere.recipes.images import splits_of
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import build
from evensphere.recipes.recipe import Recipe, get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.reproduce import run as runner
from evensphere.reproduce.cells import Cell, table_cells
from evensphere.reproduce.measures import is_measured, measure
from evensphere.reproduce.page import to_markdown
from evensphere.reproduce.pages import page_of, scores_of
from evensphere.reproduce.population import course_of_pi, total_variation
from evensphere.reproduce.publish import keep, publish
from evensphere.reproduce.results import Score
from evensphere.reproduce.run import reproduce
from evensphere.reproduce.transfer import Target, difference_for_other_images, read_targets
from evensphere.rundir import RunDir

ARCHIVE = Path(__file__).parents[2] / "benchmarks" / "results" / "small"


SHORT = ["epochs=4", "backbone.width=4", "batch_size=64", "evaluate_every=4 epochs", "snapshot_every=1 epoch"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GH and its control as a table leaves them, but shorter: trained, scored, fine-tuned, and GH looked back at."""
    folder = tmp_path_factory.mktemp("trained")
    for arm, branch in (("gh", None), ("two-stage", folder / "gh-seed0")):
        run = train(get_recipe("digits-lt", arm).set(SHORT), folder / f"{arm}-seed0", branch=branch)
        evaluate(run)
        measure(run, "supervised", scale="tiny")
    measure(folder / "gh-seed0", "population")
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to measure."""
    return Path(shutil.copytree(trained, tmp_path / "runs"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three classes of small pictures, told apart by their brightness, divided into train, val and test."""
    generator = np.random.default_rng(0)
    for part, each in (("train", 8), ("val", 4), ("test", 6)):
        for number, name in enumerate(("apple", "leek", "milk")):
            (tmp_path / "shop" / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = generator.normal(60 + 60 * number, 40, (20, 24, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "shop" / part / name / f"{i}.png")
    return tmp_path / "shop"


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing is left to do")


def value(scores: list[Score], arm: str, metric: str, column: str) -> float:
    (found,) = [s.value for s in scores if (s.arm, s.metric, s.column) == (arm, metric, column)]
    assert found is not None
    return found


def row(page: str, *begins: str) -> list[str]:
    """The cells of the first row that begins like this, in the part of the page that follows the other words."""
    *words, first = begins
    for word in words:
        page = page[page.index(word) :]
    line = next(line for line in page.splitlines() if line.startswith(f"| {first} |"))
    return line.strip("| ").split(" | ")[1:]


def done(table: str, folder: Path) -> list[Cell]:
    cells = table_cells(table, "tiny", 1, None)
    return [cell for cell in cells if is_measured(RunDir(folder / cell.folder), table)]


def features_of_test_images(run: RunDir) -> FeatureBank:
    recipe = Recipe.from_json(run.read_recipe())
    views: Views = build("views", recipe.views, seed=recipe.seed)
    encoder, test = build_encoder(recipe, 1), splits_of(recipe).test
    load_encoder(run, encoder)
    assert test is not None
    return extract(encoder, test, views)


# --- supervised -------------------------------------------------------------------------------------------------------


def test_fine_tuned_arms_are_held_against_one_network_from_scratch(trained: Path) -> None:
    cells = done("supervised", trained)
    gh, control = (RunDir(trained / f"{arm}-seed0").read_results("test") for arm in ("gh", "two-stage"))
    assert "scratch_ce" in control
    assert "scratch_ce" not in gh, "it would be the same network"
    scores = scores_of("supervised", cells, trained)
    page = to_markdown(page_of("supervised", "command", scores, cells, trained, trained / "supervised"))
    for title, found in (
        ("from scratch", control["scratch_crt"]),
        ("from GH", gh["finetune_crt"]),
        ("from two-stage rate, no GH", control["finetune_crt"]),
    ):
        assert row(page, "## cRT", title)[4] == f"{found['average']:.2f}"
    difference = gh["finetune_crt"]["few"] - control["scratch_crt"]["few"]
    assert row(page, "## cRT", "from GH, against from scratch")[2] == f"{difference:+.2f}"


# --- uniformity -------------------------------------------------------------------------------------------------------


def test_uniformity_is_that_of_the_features_and_only_what_is_trained_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", refuse)
    reproduce("uniformity", "tiny", seeds=2, out=folder, no_train=True)
    page = (folder / "uniformity.md").read_text()
    assert page.startswith("# evensphere reproduce uniformity --scale tiny --seeds 2 --no-train\n")
    assert (folder / "uniformity-neighbourhood.png").stat().st_size > 5000

    run = RunDir(folder / "gh-seed0")
    bank = features_of_test_images(run)
    centroids = class_centroids(bank.features, bank.labels, 10)
    results, cells = run.read_results("test"), done("uniformity", folder)
    scores = scores_of("uniformity", cells, folder)
    assert [cell.folder for cell in cells] == ["gh-seed0", "two-stage-seed0"]
    for metric, per_class in (
        ("inter_class_uniformity", inter_class_uniformity(centroids)),
        ("neighborhood_uniformity", neighborhood_uniformity(centroids, 9)),
    ):
        for group in ("many", "medium", "few"):
            members = [c for c, name in enumerate(results["groups"]) if name == group]
            assert value(scores, "gh", metric, group) == pytest.approx(float(per_class[members].mean()), abs=1e-4)
        assert value(scores, "gh", metric, "average") == pytest.approx(float(per_class.mean()), abs=1e-4)
    assert value(scores, "gh", "clusters_nmi", "average") == results["clusters"]["nmi"]
    last = json.loads(run.surrogates_file.read_text())["checkpoints"][-1]
    known = row(page, "## What clusters", "GH")
    assert known[2:] == [f"{last['nmi']:.3f}", f"{last['nmi_chance']:.3f}", "1 (0)"]

    monkeypatch.setattr(runner, "measure", refuse)
    reproduce("uniformity", "tiny", seeds=1, out=folder, no_train=True)


def test_classes_of_the_balanced_arm_are_grouped_as_in_the_long_tailed_set(tmp_path: Path) -> None:
    def write(arm: str, counts: list[int], per_class: list[float]) -> None:
        run = RunDir(tmp_path / f"{arm}-seed0")
        run.path.mkdir()
        run.write_json(run.recipe_file, {"name": "r", "seed": 0})
        run.write_json(run.environment_file, {"device": "a CPU"})
        measures = {f"{name}_per_class": per_class for name in ("inter_class_uniformity", "neighborhood_uniformity")}
        results = {"geometry": measures, "train_counts": counts, "group_rule": "thirds"}
        run.write_json(run.evaluation_file, results | {"clusters": {"nmi": 0.25, "ari": 0.125}})

    write("base", [1, 9, 5], [1.0, 1.1, 1.2])
    write("balanced", [5, 5, 5], [0.7, 0.8, 0.9])
    cells = [cell for cell in table_cells("uniformity", "tiny", 1, None) if cell.arm in ("base", "balanced")]
    scores = scores_of("uniformity", cells, tmp_path)
    groups = {column: value(scores, "balanced", "inter_class_uniformity", column) for column in ("many", "few")}
    assert groups == {"many": 0.8, "few": 0.7}, "the class that is common or rare in base's set"


# --- transfer ---------------------------------------------------------------------------------------------------------


def test_transfer_is_what_evaluate_says_of_the_same_images(folder: Path, pictures: Path, tmp_path: Path) -> None:
    reproduce("transfer", "tiny", seeds=1, out=folder, to=[f"shop={pictures}"], no_train=True)
    page = (folder / "transfer.md").read_text()
    contents = {}
    for arm, title in (("gh", "GH"), ("two-stage", "two-stage rate, no GH")):
        run = RunDir(folder / f"{arm}-seed0")
        expected = evaluate(run.path, pictures, ["probe", "knn"], out=tmp_path / "out.json")
        contents[arm, 0] = content = json.loads(run.transfer_file("shop").read_text())
        assert content["images"] == {"train": 24, "validation": 12, "test": 18}
        assert str(tmp_path) not in json.dumps(content)
        for metric in ("probe", "knn"):
            assert content["results"][metric]["average"] == expected[metric]["average"]
        assert row(page, "## Shop", title)[0] == f"{expected['probe']['average']:.2f}"
    assert "untrained" not in contents["gh", 0], "the network before training is the same one in every arm"
    untrained = contents["two-stage", 0]["untrained"]["knn"]["average"]
    assert untrained == expected["knn_untrained"]["average"]
    assert row(page, "## Shop", "untrained")[2] == f"{untrained:.2f}"

    interval = difference_for_other_images(("gh", "two-stage"), contents, "probe")
    assert interval is not None
    assert interval.estimate == pytest.approx(
        contents["gh", 0]["results"]["probe"]["average"] - contents["two-stage", 0]["results"]["probe"]["average"]
    )
    assert interval.low <= interval.estimate <= interval.high
    assert difference_for_other_images(("gh", "base"), contents, "probe") is None


def test_another_target_is_measured_beside_the_first(folder: Path, pictures: Path) -> None:
    run = RunDir(folder / "gh-seed0")
    measure(run.path, "transfer", [Target("shop", str(pictures))])
    before = run.transfer_file("shop").read_bytes()
    classes = pictures / "train"  # class folders alone, divided alike for all runs
    measure(run.path, "transfer", [Target("shop", "no longer there"), Target("classes", str(classes))])
    assert run.transfer_file("shop").read_bytes() == before
    assert set(run.transfer_files()) == {"shop", "classes"}


def test_runs_scored_on_other_images_under_one_name_are_not_compared(folder: Path, pictures: Path) -> None:
    measure(folder / "gh-seed0", "transfer", [Target("shop", str(pictures))])
    (pictures / "test" / "leek" / "0.png").unlink()
    measure(folder / "two-stage-seed0", "transfer", [Target("shop", str(pictures))])
    cells = done("transfer", folder)
    with pytest.raises(InputError, match="gh-seed0 and two-stage-seed0 were scored on different images as shop"):
        page_of("transfer", "command", scores_of("transfer", cells, folder), cells, folder, folder / "transfer")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ([], "give them as --to NAME=PATH"),
        (["birds"], "--to birds was given; give NAME=PATH"),
        (["../birds=here"], "the name of lower-case letters"),
        (["birds="], "give NAME=PATH"),
        (["birds=here", "birds=there"], "one name twice"),
    ],
)
def test_targets_that_cannot_be_meant_are_refused(given: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_targets(given)


def test_mistakes_are_refused_before_anything_is_trained(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "train", refuse)
    out = tmp_path / "runs"
    with pytest.raises(InputError, match="only transfer is scored on other images"):
        reproduce("pilot", "tiny", seeds=1, out=out, to=[f"shop={pictures}"])
    with pytest.raises(InputError, match="There is no folder"):
        reproduce("transfer", "tiny", seeds=1, out=out, to=[f"shop={tmp_path / 'nowhere'}"])
    with pytest.raises(InputError, match="has no labels"):
        reproduce("transfer", "tiny", seeds=1, out=out, to=[f"shop={pictures / 'train' / 'leek'}"])
    with pytest.raises(InputError, match="No cell of uniformity is trained and scored"):
        reproduce("uniformity", "tiny", seeds=1, out=out, no_train=True)


# --- population -------------------------------------------------------------------------------------------------------


def test_total_variation_is_the_share_that_moves() -> None:
    assert total_variation([0.5, 0.5, 0.0], [0.5, 0.25, 0.25]) == 0.25
    assert total_variation([1.0, 0.0], [0.0, 1.0]) == 1


def test_the_course_of_pi_is_that_of_the_logged_ones() -> None:
    run = RunDir(ARCHIVE / "gh-seed0")
    course = {record["epoch"]: record for record in course_of_pi(run)}
    priors = {event["epoch"] + 1: event["prior"] for event in run.read_metrics() if event["event"] == "population"}
    assert list(priors) == [30, 40, 50, 60]
    for epoch, prior in priors.items():
        assert course[epoch]["effective_regions"] == pytest.approx(effective_number(torch.tensor(prior)))
        assert course[epoch]["entropy"] == pytest.approx(-sum(p * math.log(p) for p in prior if p))
        assert course[epoch]["empty_regions"] == prior.count(0)
    moved = {epoch: record["moved"] for epoch, record in course.items() if "moved" in record}
    assert moved == {epoch: total_variation(priors[epoch - 10], priors[epoch]) for epoch in (40, 50, 60)}


def test_a_run_that_was_not_looked_back_at_is(folder: Path) -> None:
    run = RunDir(folder / "gh-seed0")
    before = run.surrogates_file.read_text()
    run.surrogates_file.unlink()
    assert done("population", folder) == []
    reproduce("population", "tiny", seeds=1, out=folder, no_train=True)
    assert run.surrogates_file.read_text() == before
    course, page = course_of_pi(run), (folder / "population.md").read_text()
    assert row(page, f"{course[-1]['epoch']:g}")[0] == f"{course[-1]['effective_regions']:.1f}"


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_kept_of_measured_runs_makes_the_same_rows(folder: Path, pictures: Path, tmp_path: Path) -> None:
    tables: dict[str, list[str]] = {
        "uniformity": [],
        "transfer": [f"shop={pictures}"],
        "supervised": [],
        "population": [],
    }
    for table, to in tables.items():
        reproduce(table, "tiny", seeds=1, out=folder, to=to, no_train=True)
        keep(table, "tiny", folder, tmp_path / "archive")
    assert not list((tmp_path / "archive").rglob("*.safetensors"))
    page = publish(tmp_path / "archive", tmp_path / "docs")
    for table, to in tables.items():
        places = " --to shop=PATH" if to else ""
        assert f"## `evensphere reproduce {table} --scale tiny --seeds 1{places}`" in page
        rows = [line for line in (folder / f"{table}.md").read_text().splitlines() if line.startswith("|")]
        assert len(rows) > 2
        assert "\n".join(rows[:4]) in page
        assert set(rows) <= set(page.splitlines())


def test_an_archive_shows_the_seeds_that_are_measured(tmp_path: Path) -> None:
    """Of cells 0 to 2 without a measure and a later one with it, the later one."""
    archive = tmp_path / "archive" / "small"
    for seed in range(3):
        shutil.copytree(ARCHIVE / f"gh-seed{seed}", archive / f"gh-seed{seed}")
        (archive / f"gh-seed{seed}" / "surrogates.json").unlink()
    later = RunDir(shutil.copytree(ARCHIVE / "gh-seed0", archive / "gh-seed4"))
    later.write_json(later.recipe_file, later.read_recipe() | {"seed": 4})
    (archive / "population.reading.md").write_text("It hardly moves.\n")
    page = publish(tmp_path / "archive", tmp_path / "docs")
    assert "## `evensphere reproduce population --scale small --seeds 5`\n\n### Reading\n\nIt hardly moves.\n" in page
    assert "seed 4. Fewer than three seeds: no claim can rest on it." in page
    assert "reproduce uniformity" not in page
    assert "reproduce transfer" not in page


def test_a_run_without_weights_is_not_measured(folder: Path) -> None:
    for arm in ("gh", "two-stage"):
        (folder / f"{arm}-seed0" / "encoder.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights to measure"):
        measure(folder / "gh-seed0", "uniformity")
    with pytest.raises(InputError, match="No cell of uniformity"):
        reproduce("uniformity", "tiny", seeds=1, out=folder, no_train=True)
    reproduce("supervised", "tiny", seeds=1, out=folder, no_train=True)  # which was measured while there were any
    with pytest.raises(InputError, match="Unknown table of measures 'pilot'"):
        measure(folder / "gh-seed0", "pilot")
