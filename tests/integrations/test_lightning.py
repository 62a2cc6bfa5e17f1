"""The Lightning callback: it does what the same lines in the module would do, and its state is in the checkpoint."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from evensphere import Harmonizer, WithIndex
from evensphere.errors import InputError

pytest.importorskip("pytorch_lightning")
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own

from evensphere.integrations.lightning import HarmonizerCallback  # noqa: E402

N, B, D, K = 40, 10, 6, 5
LIGHTNINGS = [
    name
    for name in ("pytorch_lightning", "lightning.pytorch")
    if name == "pytorch_lightning" or pytest.importorskip("lightning", reason="only one of the two is here")
]


@pytest.fixture(params=LIGHTNINGS)
def pl(request: pytest.FixtureRequest) -> Any:
    return import_module(request.param)


def harmonizer(**options: Any) -> Harmonizer:
    usual: dict[str, Any] = {"warm_up": "1 epoch", "ramp": 0, "update_every": "1 epoch"}
    return Harmonizer(D, N, anchors=K, **(usual | options))


def streaming() -> Harmonizer:
    durations: dict[str, Any] = {"warm_up": "2 steps", "ramp": 0, "update_every": "2 steps"}
    return Harmonizer(D, None, anchors=K, population="streaming", **durations)


def loader() -> DataLoader[Any]:
    images = torch.randn(N, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(WithIndex(TensorDataset(images, torch.zeros(N))), batch_size=B)


def make_module(pl: Any, returns: str, own: Harmonizer | None = None) -> Any:
    """returns: "tensor", "dict", "embeddings" (what the callback asks for) or "stacked" (both views in one call).
    own: a harmonizer that the module calls itself."""

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.head, self.predictor = nn.Linear(4, D), nn.Linear(D, D)
            self.losses: list[float] = []

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            x, _, index = batch
            views = (x, 0.9 * x)
            with torch.no_grad():
                self.head(x)  # a momentum branch through the same module
            z1, z2 = self.head(torch.cat(views)).chunk(2) if returns == "stacked" else (self.head(v) for v in views)
            loss = (self.predictor(z1) - z2.detach()).square().mean()
            if own is not None:
                loss = loss + own((z1, z2), index).loss
            if returns in ("tensor", "stacked"):
                return loss
            return {"loss": loss} | ({"embeddings": (z1, z2), "index": index} if returns == "embeddings" else {})

        def on_train_batch_end(self, outputs: dict[str, Tensor], batch: Any, batch_idx: int) -> None:
            self.losses.append(float(outputs["loss"]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Module()


def make_trainer(pl: Any, callbacks: list[Any], folder: Path, **options: Any) -> Any:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    given = {"max_epochs": 4, "accelerator": "cpu", "default_root_dir": folder, "callbacks": callbacks} | options
    return pl.Trainer(**quiet, **given)


def acts_from(losses: list[float], pl: Any, folder: Path) -> int:
    """The first step at which these losses are not those of the module alone."""
    make_trainer(pl, [], folder).fit(alone := make_module(pl, "tensor"), loader())
    return next(step for step, (loss, other) in enumerate(zip(losses, alone.losses, strict=True)) if loss != other)


@pytest.mark.parametrize(
    ("returns", "options"),
    [
        ("embeddings", {}),
        ("tensor", {"head": "head", "index": -1}),
        ("dict", {"head": "head", "index": -1}),
        ("stacked", {"head": "head", "index": 2}),
    ],
)
def test_it_is_the_lines_in_the_module(pl: Any, returns: str, options: dict[str, Any], tmp_path: Path) -> None:
    added, lines = make_module(pl, returns), make_module(pl, returns, own := harmonizer(steps_per_epoch=4))
    callback = HarmonizerCallback(harmonizer(), **options)
    make_trainer(pl, [callback], tmp_path).fit(added, loader())
    make_trainer(pl, [], tmp_path).fit(lines, loader())
    assert added.losses == lines.losses
    assert acts_from(added.losses, pl, tmp_path) == 4, "after the warm-up"
    assert all(torch.equal(a, b) for a, b in zip(added.parameters(), lines.parameters(), strict=True))
    assert torch.equal(callback.harmonizer.prior, own.prior)
    assert callback.harmonizer.steps_taken == 16
    assert "training_step" not in vars(added), "the step is the module's own again"


def test_shares_of_the_run_follow_from_the_trainer(pl: Any, tmp_path: Path) -> None:
    callback = HarmonizerCallback(harmonizer(warm_up=0.5))
    trainer = make_trainer(pl, [callback], tmp_path)
    trainer.fit(module := make_module(pl, "embeddings"), loader())
    assert (callback.harmonizer.steps_per_epoch, callback.harmonizer.total_steps) == (4, 16)
    assert acts_from(module.losses, pl, tmp_path) == 8
    assert trainer.callback_metrics["gh"] > 0
    callback = HarmonizerCallback(harmonizer(warm_up=0.5), log=False)
    trainer = make_trainer(pl, [callback], tmp_path, max_steps=3, max_epochs=-1, accumulate_grad_batches=2)
    trainer.fit(make_module(pl, "embeddings"), loader())
    assert callback.harmonizer.total_steps == 6, "batches, of which two make a step"
    callback = HarmonizerCallback(harmonizer(warm_up=0.5), log=False)
    trainer = make_trainer(pl, [callback], tmp_path, max_steps=3, max_epochs=-1, accumulate_grad_batches=3)
    trainer.fit(make_module(pl, "embeddings"), loader())
    assert callback.harmonizer.total_steps == 7 == callback.harmonizer.steps_taken, "an epoch of 4 batches has 2 steps"
    assert not trainer.callback_metrics


def test_a_checkpoint_has_its_state(pl: Any, tmp_path: Path) -> None:
    unbroken = HarmonizerCallback(harmonizer())
    make_trainer(pl, [unbroken], tmp_path).fit(whole := make_module(pl, "embeddings"), loader())
    first = make_trainer(pl, [HarmonizerCallback(harmonizer())], tmp_path, max_epochs=2)
    first.fit(make_module(pl, "embeddings"), loader())
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = HarmonizerCallback(harmonizer())
    second = make_trainer(pl, [resumed], tmp_path)
    second.fit(rest := make_module(pl, "embeddings"), loader(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert rest.losses == whole.losses[8:]
    assert torch.equal(resumed.harmonizer.prior, unbroken.harmonizer.prior)
    assert resumed.harmonizer.steps_taken == 16


def test_streaming_needs_no_index(pl: Any, tmp_path: Path) -> None:
    callback = HarmonizerCallback(streaming(), head="head")
    make_trainer(pl, [callback], tmp_path).fit(module := make_module(pl, "tensor"), loader())
    assert callback.harmonizer.steps_taken == 16
    assert acts_from(module.losses, pl, tmp_path) == 2
    assert not torch.allclose(callback.harmonizer.prior, torch.full((K,), 1 / K))


@pytest.mark.parametrize("calls", [(8,), (2, 6), (1,) * 8])
def test_local_crops_are_left_out_without_an_index(pl: Any, calls: tuple[int, ...], tmp_path: Path) -> None:
    """However many views a call of the head has, the first two are those of all images of the batch."""

    class MultiCrop(type(make_module(pl, "tensor"))):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            outputs = [self.head(torch.cat(part)) for part in _parts([batch[0] + i for i in range(8)], calls)]
            return torch.cat(outputs).square().mean()

    heard: list[Any] = []
    callback = HarmonizerCallback(streaming(), head="head")
    callback.harmonizer.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0]))
    make_trainer(pl, [callback], tmp_path, max_steps=1).fit(module := MultiCrop(), loader())
    module = MultiCrop()  # as it was before the step
    images = next(iter(loader()))[0]
    for view, z in enumerate(heard[0]):
        assert torch.allclose(z, module.head(images + view), atol=1e-6)


def views_heard(pl: Any, folder: Path, data: Any, step: Any) -> tuple[Tensor, ...]:
    """What a harmonizer is given of two views, where the head's outputs are its inputs and `step` is what calls it."""

    class Module(type(make_module(pl, "tensor"))):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Identity()
            self.factor = nn.Parameter(torch.ones(()))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return torch.stack([self.head(self.factor * part).square().mean() for part in step(batch)]).sum()

    callback = HarmonizerCallback(streaming(), head="head")
    heard: list[tuple[Tensor, ...]] = []
    callback.harmonizer.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0]))
    make_trainer(pl, [callback], folder, max_steps=1).fit(Module(), DataLoader(data, batch_size=None))
    (views,) = heard
    return views


def of_view(view: int, images: int = B) -> Tensor:
    return torch.randn(images, D, generator=torch.Generator().manual_seed(view))


class Opaque:
    """A batch of a type of its own."""

    def __init__(self, views: list[Tensor]) -> None:
        self.views = views


STACKED = torch.stack([of_view(0), of_view(1)])[..., None, None]
STEPS: dict[str, tuple[Any, Any]] = {
    "a tensor of views": (STACKED, lambda batch: [batch[..., 0, 0].flatten(0, 1)]),
    "a tensor of views and labels": ([STACKED, torch.zeros(B)], lambda batch: [batch[0][..., 0, 0].flatten(0, 1)]),
    "a tensor of views, one by one": (STACKED, lambda batch: list(batch[..., 0, 0])),
    "labelled images beside": (
        {"labelled": (torch.zeros(B // 2, D), torch.zeros(B // 2)), "unlabelled": (of_view(0), of_view(1))},
        lambda batch: list(batch["unlabelled"]),
    ),
    "a type of its own": (Opaque([of_view(view) for view in range(8)]), lambda batch: batch.views),
    "locals in one call": (
        Opaque([of_view(view) for view in range(8)]),
        lambda batch: [batch.views[0], batch.views[1], torch.cat(batch.views[2:])],
    ),
    "lists of crops": (
        [of_view(view) for view in range(8)],
        lambda batch: [torch.cat(batch[:2]), torch.cat(batch[2:])],
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_views_are_paired_whatever_holds_them(pl: Any, name: str, tmp_path: Path) -> None:
    batch, step = STEPS[name]
    views = views_heard(pl, tmp_path, [batch], step)
    assert len(views) == 2
    assert all(torch.equal(z, of_view(view)) for view, z in enumerate(views))


@pytest.mark.parametrize(
    ("batch", "step"),
    [
        (torch.stack([of_view(view) for view in range(8)]), lambda batch: [batch.flatten(0, 1)]),
        (Opaque([of_view(view) for view in range(8)]), lambda batch: [torch.cat(batch.views[:2]), batch.views[2]]),
        (
            {"labelled": (of_view(0, 5), torch.zeros(5)), "unlabelled": (of_view(0), of_view(1))},
            lambda batch: [batch["labelled"][0], *batch["unlabelled"]],
        ),
    ],
    ids=["views-or-images", "globals-in-one-call", "labelled-too"],
)
def test_views_that_nobody_can_tell_apart_are_refused(pl: Any, batch: Any, step: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"are not 2 views of .* images; name a submodule .* or return the embeddings"):
        views_heard(pl, tmp_path, [batch], step)


def _parts(views: list[Tensor], sizes: tuple[int, ...]) -> list[list[Tensor]]:
    rest = iter(views)
    return [[next(rest) for _ in range(size)] for size in sizes]


def test_a_step_that_is_left_out_is_left_out(pl: Any, tmp_path: Path) -> None:
    class Skips(type(make_module(pl, "embeddings"))):  # type: ignore[misc]
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            pass

    callback = HarmonizerCallback(harmonizer())
    make_trainer(pl, [callback], tmp_path).fit(Skips(), loader())
    assert callback.harmonizer.steps_taken == 12


@pytest.mark.parametrize(
    ("returns", "options", "sentence"),
    [
        ("tensor", {}, "returns no 'embeddings'"),
        ("tensor", {"head": "heat"}, "has no submodule 'heat'; it has head, predictor"),
        ("tensor", {"head": "head"}, "need each image's index"),
        ("tensor", {"head": "head", "index": 1}, "no whole numbers of its images at 1"),
        ("tensor", {"head": "head", "index": "index"}, "no whole numbers of its images at 'index'"),
        ("tensor", {"head": "predictor", "index": -1}, "are not 2 views of 10 images"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    pl: Any, returns: str, options: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    module = make_module(pl, returns)
    with pytest.raises(InputError, match=sentence):
        make_trainer(pl, [HarmonizerCallback(harmonizer(), **options)], tmp_path).fit(module, loader())
    assert "training_step" not in vars(module)


def test_modules_that_optimise_by_hand_are_refused(pl: Any, tmp_path: Path) -> None:
    module = make_module(pl, "tensor")
    module.automatic_optimization = False
    with pytest.raises(InputError, match="optimises by hand"):
        make_trainer(pl, [HarmonizerCallback(harmonizer())], tmp_path).fit(module, loader())


def test_classes_are_not_taken_for_numbers_of_images(pl: Any, tmp_path: Path) -> None:
    labelled = DataLoader(TensorDataset(torch.randn(N, 4), torch.zeros(N), torch.arange(N) % 2), batch_size=B)
    with pytest.raises(InputError, match="2 different numbers for 10 images"):
        make_trainer(pl, [HarmonizerCallback(harmonizer(), "head", index=-1)], tmp_path).fit(
            make_module(pl, "tensor"), labelled
        )
