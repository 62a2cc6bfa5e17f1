"""Parameters in parts: a run of processes that keep a part each is the run of one, which can go on with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.distributed.in_processes import in_processes
from tests.distributed.same import assert_same, differences, job, logged, take_over, train_in, write_images
from tests.distributed.train_each import Job

from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.sharded import check_encoder
from evensphere.rundir import RunDir

VIT = [
    *("backbone=timm/vit_tiny_patch16_224", "backbone.patch_size=2", "backbone.depth=2", "backbone.embed_dim=18"),
    *("backbone.num_heads=3", "views.local_views=0"),
]
RUNS = {  # at rates that make little of what rounding leaves, in copies as in parts
    "simclr": ["optimizer=sgd", "schedule.learning_rate=0.0005", "schedule.middle=0.0003"],
    "dino": ["optimizer=adamw", "schedule.learning_rate=0.005", "schedule.middle=0.003"],
}


def job_of(folder: Path, name: str, images: Path) -> Job:
    """The run of a method on a ViT that no number of processes shares alike."""
    made = job(folder, name, images, *RUNS[name.split()[0]])
    settings = [one for one in made.settings if not one.startswith("backbone.width")]
    return made._replace(settings=[*settings, *VIT])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs in one process and in parts on two, and what either makes of the other's middle."""
    root = tmp_path_factory.mktemp("runs")
    images = write_images(root)
    for folder, sharding in (("1", "none"), ("2", "fsdp")):
        train_in(int(folder), [job_of(root / folder, name, images) for name in RUNS], root / folder, sharding)
    for source, folder, sharding in (("2", "1", "none"), ("1", "2", "fsdp")):
        jobs = [taken_over(root / source / name, root / folder, f"{name} from {source}", images) for name in RUNS]
        train_in(int(folder), jobs, root / folder, sharding)
    return root


def taken_over(begun: Path, folder: Path, name: str, images: Path) -> Job:
    take_over(begun, folder, name, images)
    return job_of(folder, name, images)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_in_parts_is_the_run_of_one_process(runs: Path, name: str) -> None:
    assert_same(runs / "2" / name, runs / "1" / name)
    assert any(event.get("gh", 0) > 0 for event in logged(runs / "2" / name)), "GH has acted"
    parts, whole = (load_file(RunDir(runs / folder / name).encoder_file) for folder in ("2", "1"))
    assert parts.keys() == whole.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(parts[key], tensor, rtol=1e-9, atol=1e-9, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_one_process_goes_on_with_a_run_in_parts_and_the_other_way_round(runs: Path, name: str) -> None:
    assert_same(runs / "1" / f"{name} from 2", runs / "1" / name)
    assert_same(runs / "2" / f"{name} from 1", runs / "1" / name)


PARTS = """
import timm
from evensphere.engine.sharding import gathered, is_sharded, local, shard, shards_of, shards_of_optimizer

torch.manual_seed(0)
encoder = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=0)
whole = {name: value.clone() for name, value in encoder.state_dict().items()}
shard(encoder, torch.device("cpu"))
optimizer = torch.optim.AdamW(encoder.parameters())
encoder(torch.randn(4, 3, 32, 32)).square().mean().backward()
optimizer.step()
state = optimizer.state_dict()
kept, moments = gathered(encoder.state_dict(), keep=rank == 0), gathered(state, keep=True)
result = {
    "share": sum(local(p).numel() for p in encoder.parameters()) / sum(value.numel() for value in whole.values()),
    "moments": sum(local(m).numel() for one in state["state"].values() for m in one.values()),
    "sharded": all(map(is_sharded, encoder.parameters())),
    "kept": [None if value is None else value.shape == whole[name].shape for name, value in kept.items()],
    "same": all(
        torch.equal(local(mine), local(again))
        for mine, again in zip(
            [*encoder.state_dict().values(), *(m for one in state["state"].values() for m in one.values())],
            [
                *shards_of(gathered(encoder.state_dict()), encoder.state_dict()).values(),
                *(m for one in shards_of_optimizer(moments, optimizer)["state"].values() for m in one.values()),
            ],
            strict=True,
        )
    ),
}
"""


@pytest.mark.slow
def test_each_process_keeps_half_and_states_are_gathered_and_divided_again(tmp_path: Path) -> None:
    first, second = in_processes(2, PARTS, {}, tmp_path)
    for one in (first, second):
        assert one["sharded"]
        assert one["same"]
        assert 0.45 < one["share"] < 0.55
    assert first["share"] + second["share"] == pytest.approx(1)
    assert set(first["kept"]) == {True}
    assert set(second["kept"]) == {None}


def test_the_comparison_sees_a_run_that_is_another(tmp_path: Path) -> None:
    images = write_images(tmp_path)
    one = job_of(tmp_path / "a", "simclr", images)
    other = one._replace(out=str(tmp_path / "b" / "simclr"), settings=[*one.settings, "seed=1"])
    train_in(1, [one, other], tmp_path)
    assert differences(one.out, other.out, 1e-3)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["method=byol"], "the method byol"),
        (["optimizer=lars"], "the optimizer lars"),
        (["micro_batches=2"], "micro_batches = 2"),
        (["compile=true"], "compile=true"),
        (["stages=dnc"], "stages"),
    ],
)
def test_what_cannot_be_sharded_is_refused(settings: list[str], what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"sharding was given with {what}; it is experimental, .* leave it out"):
        train(get_recipe("digits-lt").set(settings), tmp_path / "run", devices=2, sharding="fsdp")
    assert not (tmp_path / "run").exists()


def test_an_old_torch_is_said_to_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed.fsdp import FSDPModule

    monkeypatch.delattr(FSDPModule, "set_force_sum_reduction_for_comms")
    with pytest.raises(InputError, match="needs a newer torch than"):
        train("digits-lt", tmp_path / "run", devices=2, sharding="fsdp")


def test_a_branch_cannot_be_sharded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sharding was given with --branch"):
        train("digits-lt", tmp_path / "run", branch=tmp_path, devices=2, sharding="fsdp")


def test_one_process_has_nobody_to_share_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sharding = fsdp was given for one process; give --devices N"):
        train("digits-lt", tmp_path / "run", sharding="fsdp")


def test_an_encoder_without_blocks_is_refused() -> None:
    from evensphere.nn.backbone import resnet_small, timm_backbone

    recipe = get_recipe("digits-lt")
    check_encoder(recipe, timm_backbone("vit_tiny_patch16_224", image_sizes=(32,), depth=1))
    for encoder in (resnet_small(1, 4), timm_backbone("efficientnet_b0", image_sizes=(32,))):
        with pytest.raises(InputError, match="sharding was given with the backbone resnet-small"):
            check_encoder(recipe, encoder)
