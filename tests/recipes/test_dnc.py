"""DnC: its stages are ordinary runs, what each leaves to the next, and that nothing is done twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.contract.sizes import SETTINGS
from tests.recipes.test_run import save_digits
from torch import Tensor, nn

from evensphere.data.digits import digits
from evensphere.engine import train as engine
from evensphere.engine.train import Training
from evensphere.errors import InputError
from evensphere.methods import METHODS
from evensphere.methods.base import Method
from evensphere.methods.simclr import SimCLR
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress
from evensphere.recipes import dnc
from evensphere.recipes.dnc import DnC, HiddenLayer
from evensphere.recipes.mapping import draw_map
from evensphere.recipes.network import projector_of
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.report import write_report
from evensphere.rundir import RunDir

TINY = ["epochs=6", "backbone.width=4", "evaluate_every=10 epochs", "checkpoint_every=2 steps", "stages=dnc"]
STAGES = ["00-base", "01-clusters", "02-expert-00", "03-expert-01", "04-expert-02", "05-distil"]
RUNS = [name for name in STAGES if name != "01-clusters"]


def tiny(arm: str = "gh", *settings: str) -> Recipe:
    """Two epochs of a base, three of three experts, one of distillation."""
    return get_recipe("digits-lt", arm).set([*TINY, "stages.clusters=3", *settings])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return RunDir(train(tiny(), tmp_path_factory.mktemp("dnc") / "run"))


def stage(run: RunDir, name: str) -> RunDir:
    return RunDir(run.stages / name)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what is in it."""
    found = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock"]
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in found}


# --- the stages -------------------------------------------------------------------------------------------------------


def test_every_stage_is_an_ordinary_run(finished: RunDir) -> None:
    assert sorted(folder.name for folder in finished.stages.iterdir()) == STAGES
    for name in RUNS:
        run = stage(finished, name)
        recipe = Recipe.from_json(run.read_recipe())
        assert run.encoder_file.exists()
        assert recipe.stages is None
        assert recipe.epochs == {"base": 2, "expert": 3, "distil": 1}[name.split("-")[1]]
        steps = [event["step"] for event in run.read_metrics() if event["event"] == "step"]
        assert steps == list(range(recipe.resolved["total_steps"]))


def test_its_length_may_be_left_to_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evensphere.recipes.recipe._FEWEST_EPOCHS", 6)
    monkeypatch.setattr("evensphere.recipes.recipe._MOST_EPOCHS", 6)
    run = RunDir(train(tiny("base", "epochs=auto", "stages.clusters=2"), tmp_path / "run"))
    assert run.read_recipe()["epochs"] == 6
    names = ("00-base", "02-expert-00", "03-expert-01", "04-distil")
    assert [stage(run, name).read_recipe()["epochs"] for name in names] == [2, 3, 3, 1]


def test_the_clusters_divide_the_images(finished: RunDir) -> None:
    splits = digits(imbalance=20)
    everything = [splits.pretrain.location(i) for i in range(len(splits.pretrain))]
    experts = [stage(finished, name) for name in RUNS[1:-1]]
    parts = [expert.read_images() for expert in experts]
    assert sorted(location for part in parts for location in part) == sorted(everything)
    assert stage(finished, "05-distil").read_images() == everything, "in the base's order"
    sizes = json.loads((finished.stages / "01-clusters" / "clusters.json").read_text())["sizes"]
    assert [expert.read_recipe()["resolved"]["num_images"] for expert in experts] == sizes == [len(p) for p in parts]
    assert min(sizes) >= 2


def test_gh_acts_in_base_and_experts_and_the_last_stage_is_every_arms(finished: RunDir, tmp_path: Path) -> None:
    for name in RUNS:
        harmonized = any(event.get("gh", 0) > 0 for event in stage(finished, name).read_metrics())
        assert harmonized == (name != "05-distil"), name
    base = RunDir(train(tiny("base"), tmp_path / "base"))
    last = [stage(run, "05-distil").read_recipe() for run in (finished, base)]
    for field in ("schedule", "harmonizer", "method", "epochs"):
        assert last[0][field] == last[1][field]
    for run, harmonized in ((finished, True), (base, False)):
        assert any("gh" in event for event in run.read_metrics()) == harmonized


def test_an_expert_is_the_run_on_its_images_from_scratch(finished: RunDir, tmp_path: Path) -> None:
    """To the last bit the run on a list of images that anybody can make."""
    mine = stage(finished, "03-expert-01")
    images = tmp_path / "images.txt"
    images.write_text("\n".join(mine.read_images()) + "\n")
    alone = get_recipe("digits-lt").set([*TINY[1:-1], "epochs=3", f"images={images}"])
    run = RunDir(train(alone, tmp_path / "run"))
    assert run.encoder_file.read_bytes() == mine.encoder_file.read_bytes()
    assert run.metrics_file.read_bytes() == mine.metrics_file.read_bytes()


# --- the whole run ----------------------------------------------------------------------------------------------------


def test_the_run_is_the_distilled_network(finished: RunDir) -> None:
    assert finished.encoder_file.read_bytes() == stage(finished, "05-distil").encoder_file.read_bytes()
    recipe = Recipe.from_json(finished.read_recipe())
    assert recipe.stages == Part("dnc", clusters=3)
    assert recipe.method.name == "simclr"
    seconds = sum(stage(finished, name).train_seconds() or 0 for name in RUNS)
    assert finished.train_seconds() == pytest.approx(seconds, abs=0.01)


def test_its_metrics_are_on_one_time_axis(finished: RunDir) -> None:
    """The base in the first 2 epochs of 3 steps, 3 epochs of experts, the distillation in the last."""
    steps = [event for event in finished.read_metrics() if event["event"] == "step"]
    assert [event["step"] for event in steps] == [*range(6), *range(15, 18)]
    assert [event["epoch"] for event in steps] == [0, 0, 0, 1, 1, 1, 5, 5, 5]
    assert {event["stage"] for event in steps} == {"00-base", "05-distil"}
    assert steps[-1]["step"] + 1 == finished.read_recipe()["resolved"]["total_steps"]


def test_it_is_evaluated_and_reported_like_any_run(finished: RunDir) -> None:
    results = evaluate(finished.path, metrics=["knn"])
    assert results["knn"]["average"] > 15, "guessing would be 10"
    last = evaluate(finished.stages / "05-distil", metrics=["knn"])
    assert last["knn"] == results["knn"]
    assert last["knn_untrained"] == results["knn_untrained"]
    page = write_report([finished.path, finished.stages / "00-base"], finished.path / "page.html").read_text()
    assert "in the stages of dnc" in page
    content = json.loads(draw_map(finished.path).read_text())
    assert len(content["names"]) == finished.read_recipe()["resolved"]["num_images"]
    assert "region" not in content, "a distilled encoder has no regions of its own"


def test_a_run_in_one_piece_says_nothing_of_stages(tmp_path: Path) -> None:
    written = get_recipe("digits-lt").to_json()
    assert not {"stages", "images", "teachers"} & set(written)
    assert "stages" not in tiny().set(["stages=none"]).to_json()


# --- stopping and going on --------------------------------------------------------------------------------------------


class Stopped(Exception):
    """Instead of a power cut."""


def stop(*_: object, **__: object) -> Any:
    raise Stopped


def die(patch: pytest.MonkeyPatch, moment: tuple[int, int] | None) -> None:
    """Stop in the run of so many epochs before such a step, or, None, while clustering."""
    take_step = engine._take_step

    def dying(training: Training, step_module: nn.Module, batch: Any, progress: Progress, fabric: Any) -> Any:
        if (training.epochs, progress.step) == moment:
            raise Stopped
        return take_step(training, step_module, batch, progress, fabric)

    patch.setattr(engine, "_take_step", dying)
    if moment is None:
        patch.setattr(dnc, "cosine_k_means", stop)


def is_done(run: RunDir, name: str) -> bool:
    return (run.stages / name / ("clusters.json" if name == "01-clusters" else "encoder.safetensors")).exists()


def test_stopped_in_every_stage_it_equals_a_run_that_never_was(
    finished: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDir(tmp_path / "run")
    kept: dict[str, object] = {}
    moments = {"00-base": (2, 5), "01-clusters": None, "02-expert-00": (3, 2), "05-distil": (1, 2)}
    for where, moment in moments.items():
        with monkeypatch.context() as patch:
            die(patch, moment)
            with pytest.raises(Stopped):
                train(tiny(), run.path, resume=True)
        assert [name for name in STAGES if is_done(run, name)] == [name for name in STAGES if name < where]
        assert {name: files(run.stages / name) for name in kept} == kept, "what is finished is left as it is"
        kept = {name: files(run.stages / name) for name in STAGES if name < where}
        assert not run.encoder_file.exists()
    train(tiny(), run.path, resume=True)
    assert {name: files(run.stages / name) for name in kept} == kept
    for name in ("", *(f"stages/{name}" for name in RUNS)):
        mine, theirs = RunDir(run.path / name), RunDir(finished.path / name)
        assert mine.encoder_file.read_bytes() == theirs.encoder_file.read_bytes(), name
        assert mine.metrics_file.read_bytes() == theirs.metrics_file.read_bytes(), name


def test_a_finished_run_is_left_as_it_is(finished: RunDir) -> None:
    before = files(finished.path)
    train(tiny(), finished.path, resume=True)
    assert files(finished.path) == before


@pytest.mark.slow
def test_a_run_may_move_between_stop_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "run")
    with monkeypatch.context() as patch:
        die(patch, (1, 2))  # in the distillation, which has lists and teachers in other folders
        with pytest.raises(Stopped):
            train(tiny(), run.path)
    moved = run.path.rename(tmp_path / "elsewhere")
    train(tiny(), moved, resume=True)
    assert RunDir(moved).encoder_file.exists()


# --- other data, other methods ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_of_images_without_labels(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for file in save_digits(tmp_path / "nested").rglob("*.png"):
        file.rename(images / file.name)
    (images / "broken.png").write_bytes(b"no picture")
    settings = ["epochs=6", "workers=0", "precision=32-true", "backbone.width=4", "stages=dnc", "stages.clusters=2"]
    run = RunDir(train(with_data(get_recipe("folder"), str(images)).set(settings), tmp_path / "run"))
    assert [location for location, _ in run.read_skipped()] == ["broken.png"]
    assert len(run.read_images()) == 40
    recipes = [Recipe.from_json(RunDir(file.parent).read_recipe()) for file in run.stages.glob("*/recipe.json")]
    assert len(recipes) == 4
    assert len({(recipe.views.options["size"], recipe.batch_size, str(recipe.backbone)) for recipe in recipes}) == 1
    assert "knn" in evaluate(run.path, data=save_digits(tmp_path / "labelled", count=30), metrics=["knn"])


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_any_method_can_be_divided(name: str, tmp_path: Path) -> None:
    run = train(tiny("gh", f"method={name}", *SETTINGS.get(name, [])), tmp_path / "run")
    assert "knn" in evaluate(run, metrics=["knn"])


@pytest.mark.parametrize("name", METHODS)
def test_a_teacher_makes_the_embeddings_of_its_method(name: str) -> None:
    torch.manual_seed(0)
    encoder = resnet_small(1, width=4, stages=2)
    method: Method = build("method", Part(name, embedding_dim=24), encoder=encoder, num_samples=8)
    views = tuple(torch.randn(2, 8, 1, 8, 8))
    z = method(views, torch.arange(8), Progress(0, 1, 1)).embeddings[0]
    assert torch.allclose(projector_of(method)(method.encoder(views[0])), z, atol=1e-6)
    hidden = HiddenLayer(method)(views[0])
    assert len(hidden) == 8
    assert hidden.shape != z.shape or not torch.allclose(hidden, z), "it is not the embedding"


def test_the_clusters_are_those_of_the_projectors_hidden_layer() -> None:
    torch.manual_seed(0)
    method = SimCLR(resnet_small(1, width=4, stages=2), 6).eval()
    images = torch.randn(5, 1, 8, 8)
    hidden = method.projector[2](method.projector[1](method.projector[0](method.encoder(images))))
    assert torch.equal(HiddenLayer(method)(images), hidden)
    assert (
        HiddenLayer(method).state_dict().keys()
        == nn.ModuleDict({"encoder": method.encoder, "projector": method.projector}).state_dict().keys()
    )


# --- lengths and mistakes ---------------------------------------------------------------------------------------------


def test_the_lengths_are_the_papers() -> None:
    assert DnC().epochs(3000) == (1000, 1500, 500)
    assert DnC(base="200 epochs", experts=0.6).epochs(1000) == (200, 600, 200)
    assert DnC(10, base="1000 epochs", experts="3000 epochs").epochs(4500) == (1000, 3000, 500)
    for total in range(4, 200):
        assert sum(DnC().epochs(total)) == total


class NoProjector(SimCLR):
    """A method whose head has another name."""

    def __init__(self, encoder: nn.Module, embedding_dim: int = 8) -> None:
        super().__init__(encoder, embedding_dim)
        self.head = self.projector
        del self.projector

    def embed(self, views: Any) -> tuple[Tensor, ...]:
        return tuple(self.head(self.encoder(view)) for view in views)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["stages.clusters=1"], "at least 2"),
        (["stages.clusters=many"], "takes a whole number"),
        (["stages.cluster=3"], "did you mean 'clusters'"),
        (["stages=dncc"], "did you mean 'dnc'"),
        (["stages.base=10 steps"], "epochs or a fraction"),
        (["stages.base=soon"], "not a duration"),
        (["stages.base=0.5"], "6 epochs leave 3 to the base, 3 to the experts and 0"),
        (["epochs=2"], "give more epochs"),
        (["stages=none", "stages.clusters=3"], "the run has no stages"),
        (["method=dnc"], "--set stages=dnc"),
        (["schedule.warm_up=3 epochs"], "warm-up of 3 epochs"),
        (["method=tests.recipes.test_dnc:NoProjector"], "has no projector"),
        (["method.temperature=0"], "above 0"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing_behind(tmp_path: Path, settings: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        train(tiny("base", *settings), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(finished: RunDir) -> None:
    before = files(finished.path)
    with pytest.raises(InputError, match="already holds a run"):
        train(tiny(), finished.path)
    for settings in (["stages.clusters=4"], ["stages=none"], ["method.temperature=0.1"], ["stages.experts=0.4"]):
        with pytest.raises(InputError, match="was begun with"):
            train(tiny("gh", *settings), finished.path, resume=True)
    assert files(finished.path) == before


def test_it_shares_no_first_stage(finished: RunDir, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leave out --branch"):
        train(tiny(), tmp_path / "run", branch=finished.path)
    with pytest.raises(InputError, match="stages"):
        train(tiny("two-stage", "stages=none"), tmp_path / "run", branch=finished.path)
    assert not (tmp_path / "run").exists()
