"""Lightning: a callback that adds Geometric Harmonization to the loss of any LightningModule.

    trainer = Trainer(callbacks=[HarmonizerCallback(Harmonizer(dim=128, num_samples=len(dataset)))])

The module says what is to be harmonized, by what its `training_step` returns:

    return {"loss": loss, "embeddings": (z1, z2), "index": index}

That is the way that cannot go wrong: only the module knows which of its tensors are full views before a predictor or
prototypes. For a module that one cannot change, `head` names the submodule whose outputs are the embeddings, one call
for each view or all views in one call; `index` says where the batch has its images' numbers.

The loss is added inside `training_step`, so whatever Lightning does with a loss happens to the sum: precision, gradient
accumulation, data parallelism. Lightning offers callbacks no place for that, so the step is wrapped from the beginning
of `fit` to its end. `lightning` and `pytorch_lightning` are two names of one library; the callback suits both.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer

_NAMES = ("lightning.pytorch", "pytorch_lightning")


def _callbacks() -> tuple[type, ...]:
    """The class Callback of the Lightning that the program uses; both of them if it uses both (Lightly imports one)."""
    used = tuple(import_module(name).Callback for name in _NAMES if sys.modules.get(name))
    if used:
        return used
    for name in _NAMES:
        with suppress(ImportError):
            return (import_module(name).Callback,)
    raise InputError("The Lightning callback needs Lightning; pip install 'evensphere[lightning]'.")


if TYPE_CHECKING:
    _Callback = object
else:
    _Callback = type("_Callback", _callbacks(), {})


class HarmonizerCallback(_Callback):
    """Adds the harmonizer's loss to the training step, logs it, and keeps its state in Lightning's checkpoints.

    harmonizer: its `steps_per_epoch` and `total_steps` are filled in from the trainer unless they were given, so that
        durations may be in epochs, in steps or shares of the run. A step is a batch.
    head: for a module whose `training_step` returns no embeddings: the name of the submodule that makes them, like
        "projection_head" or "student_head.layers". The step's first `views` views are taken (later ones are local
        crops); outputs without gradient, of a momentum branch, are not.
    index: where the batch has the numbers of its images, a place or a key: -1 behind `WithIndex`. None: the returned
        dictionary has them, or nobody needs them (population="streaming").
    log: whether gh, gh_weight ... are logged by the module.

    Raises InputError, at the first step, for a module that optimises by hand and where no embeddings can be found.
    """

    def __init__(
        self,
        harmonizer: Harmonizer,
        head: str | None = None,
        views: int = 2,
        index: int | str | None = None,
        log: bool = True,
    ) -> None:
        super().__init__()
        self.harmonizer, self.head, self.views, self.index = harmonizer, head, views, index
        self._logs = log  # Lightning gives callbacks a method `log`
        self._wrapped: Any = None  # the module whose step is wrapped

    # --- the trainer's calls ------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage != "fit":
            return
        if not pl_module.automatic_optimization:
            raise InputError(
                f"{type(pl_module).__name__} optimises by hand, so nothing can be added to its loss from outside; "
                "call the harmonizer where it computes its loss."
            )
        if self.head is not None:
            _submodule(pl_module, self.head)
        self._wrap(pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        harmonizer, batches = self.harmonizer, trainer.num_training_batches
        epochs = batches * trainer.max_epochs if (trainer.max_epochs or -1) > 0 else math.inf
        steps = _batches_of(trainer.max_steps, batches, trainer.accumulate_grad_batches)
        if harmonizer.steps_per_epoch is None and batches < math.inf:
            harmonizer.steps_per_epoch = int(batches)
        if harmonizer.total_steps is None and min(epochs, steps) < math.inf:
            harmonizer.total_steps = int(min(epochs, steps))
        harmonizer.to(pl_module.device).train()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._unwrap()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._unwrap()

    def state_dict(self) -> dict[str, Any]:
        return dict(self.harmonizer.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.harmonizer.load_state_dict(state_dict)

    # --- the step -----------------------------------------------------------------------------------------------------

    def _wrap(self, module: Any) -> None:
        self._unwrap()
        original = module.training_step

        @functools.wraps(original)  # Lightning looks at the signature
        def harmonized(*arguments: Any, **named: Any) -> Any:
            with _listening(module, self.head) as heard:
                output = original(*arguments, **named)
            return self._add(module, arguments[0] if arguments else named["batch"], output, heard)

        module.training_step = harmonized
        self._wrapped = module

    def _unwrap(self) -> None:
        if self._wrapped is not None:
            original = self._wrapped.training_step.__wrapped__
            del self._wrapped.training_step
            if getattr(self._wrapped, "training_step", None) != original:  # it was an attribute already
                self._wrapped.training_step = original
            self._wrapped = None

    def _add(self, module: Any, batch: Any, output: Any, heard: Sequence[Tensor]) -> Any:
        """What the step returned, with the harmonizer's loss added; None where the step is to be left out."""
        if output is None:
            return None
        returned: Mapping[str, Any] = output if isinstance(output, Mapping) else {"loss": output}
        index = returned.get("index")
        if index is None and self.index is not None:
            index = _entry(batch, self.index)
        embeddings = returned.get("embeddings")
        if embeddings is None:
            embeddings = self._heard(module, heard, batch, None if index is None else len(index))
        harmony = self.harmonizer(tuple(embeddings), index)
        if self._logs:
            module.log_dict(harmony.logs, batch_size=len(embeddings[0]))
        loss = returned["loss"] + harmony.loss
        return {**returned, "loss": loss} if isinstance(output, Mapping) else loss

    def _heard(self, module: Any, heard: Sequence[Tensor], batch: Any, images: int | None) -> Sequence[Tensor]:
        """The full views among what the head was heard to say. images: in the batch, if that is known."""
        if self.head is None:
            raise InputError(
                f"{type(module).__name__}.training_step returns no 'embeddings'; return "
                "{'loss': loss, 'embeddings': (z1, z2), 'index': index}, or give the callback the name of the head."
            )
        everything = torch.cat(tuple(heard)) if heard else torch.empty(0)
        if images is None:
            images = _images_of(batch, [len(one) for one in heard], self.views)
        if not images or len(everything) < self.views * images or any(len(one) % images for one in heard):
            raise InputError(
                f"The head '{self.head}' gave outputs of {[len(one) for one in heard]} rows in a training step, which "
                f"are not {self.views} views of {images or 'some'} images; name a submodule that is called once for "
                "each view or once for all, or return the embeddings from training_step."
            )
        views: tuple[Tensor, ...] = everything.split(images)
        return views[: self.views]


# --- what a module says of itself -------------------------------------------------------------------------------------


@contextmanager
def _listening(module: nn.Module, head: str | None) -> Iterator[list[Tensor]]:
    """Collects what a submodule gives while the block runs, if a gradient can go through it."""
    heard: list[Tensor] = []

    def hear(_: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            heard.append(output)

    if head is None:
        yield heard
        return
    handle = _submodule(module, head).register_forward_hook(hear)
    try:
        yield heard
    finally:
        handle.remove()


def _submodule(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError as error:
        known = ", ".join(name for name, _ in module.named_children())
        raise InputError(f"{type(module).__name__} has no submodule '{name}'; it has {known or 'none'}.") from error


def _batches_of(updates: int, of_epoch: float, added_up: int) -> float:
    """Batches that so many updates take, where gradients are added up and an epoch's last ones are not kept back."""
    if updates <= 0 or of_epoch == math.inf:
        return updates * added_up if updates > 0 else math.inf
    epochs, rest = divmod(updates, math.ceil(of_epoch / added_up))
    return epochs * of_epoch + rest * added_up


def _images_of(batch: Any, calls: Sequence[int], views: int) -> int | None:
    """How many images a step is of; None where what the batch holds and what the head gave do not go together.

    calls: rows that each call of the head gave. Usually each is a view, or there is one of all views. Where the batch
    holds no such number of images, the calls have local crops as well, and the batch's tensors tell, if they agree.
    """
    one_each = len(calls) >= views and len(set(calls[:views])) == 1
    images = calls[0] if one_each else sum(calls) // views
    tensors = list(_tensors(batch))
    sizes = {size for one in tensors for size in one.shape[: 2 if one.ndim > 4 else 1]}  # five: [views, images, ...]
    if not sizes or images in sizes or views * images in sizes:  # which has its views one after the other
        return images
    lengths = {len(one) for one in tensors}
    # a lone tensor may hold views as well as images
    return lengths.pop() if len(lengths) == 1 and len(tensors) > 1 else None


def _tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch that have a length, in lists and dictionaries too."""
    if isinstance(batch, Tensor):
        yield from [batch] if batch.ndim else []
        return
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        yield from _tensors(part)


def _entry(batch: Any, where: int | str) -> Tensor:
    """The index in a batch."""
    try:
        entry = batch[where]
    except (KeyError, IndexError, TypeError):
        entry = None
    if not isinstance(entry, Tensor) or entry.ndim != 1 or entry.is_floating_point():
        raise InputError(
            f"The batch has no whole numbers of its images at {where!r}; wrap the data set in WithIndex and give "
            "index=-1 (for dictionaries 'index'), or make the harmonizer with population='streaming'."
        )
    return entry
