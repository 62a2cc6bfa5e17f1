"""Supervised fine-tuning of a whole encoder on the long tail: what pretraining is worth to whoever has labels there.

Five ways of dealing with the tail come from two trainings of encoder and linear head together:

    ce                 cross-entropy
    logit_adjusted     the same network, its logits less tau log(share of the class) (Menon et al., ICLR 2021, post hoc)
    tau_norm           the same network, its head's weights divided by their lengths to the power tau, without bias
    crt                the same encoder, with a head fitted anew to its frozen features, all classes weighing the same
                       (both Kang et al., ICLR 2020)
    balanced_softmax   a second training, with log(share) added to the logits (Ren et al., NeurIPS 2020)

Learning rate, tau and the new head's C are those with the best validation accuracy (mean over classes); of equals the
first is kept. Without validation images they are the first rate, 1 and the probe's default.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.errors import InputError, TrainingStopped
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import C_GRID, DEFAULT_C, mean_class_accuracy, scores
from evensphere.metrics.heads import TAUS, Head, adjusted, class_balanced, fit_head, log_shares, tau_normalised
from evensphere.ops.draw import seed_for
from evensphere.ops.transfer import send

METHODS = ("ce", "logit_adjusted", "balanced_softmax", "crt", "tau_norm")


@dataclass(frozen=True)
class Tuning:
    """How a network is fine-tuned: SGD with momentum, the rate falling to 0 along a cosine.

    epochs, batch_size: at least 1 and 2. learning_rates: each is tried; above 0. momentum: in [0, 1). weight_decay: at
    least 0. seed: addresses the head's first weights, the order of the images and their crops.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rates: tuple[float, ...] = (0.03, 0.1)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise InputError(f"{self.epochs} epochs of fine-tuning were asked for; give at least 1.")
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise InputError(f"learning_rates = {list(self.learning_rates)} was given; give one or more above 0.")


class Network(NamedTuple):
    """A fine-tuned encoder and its head. rate: the learning rate it was trained with."""

    encoder: nn.Module
    head: nn.Linear
    rate: float


def finetune(
    encoder: nn.Module,
    loader: Loader,
    views: Views,
    labels: Int64[Tensor, " n"],
    num_classes: int,
    banks_of: Callable[[nn.Module], Banks],
    tuning: Tuning,
    took_a_step: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Scores of all five METHODS, from one encoder to start from, which is left as it is.

    loader, labels: the training images and the class of each; views: how they are seen (the first view). banks_of: the
    plain features of training, validation and test images; the train bank holds the images of the loader.
    took_a_step: called after each step of every training; there are `steps(...)` of them.
    Raises TrainingStopped if the loss is no longer finite.
    """
    if len(labels.unique()) < 2:
        raise InputError("All training images are of one class; fine-tuning needs at least two classes.")
    shares = log_shares(labels, num_classes)

    def best(offset: Float64[Tensor, " c"] | None) -> _Tuned:
        """The network whose learning rate is best on validation images."""
        found = [
            _seen(
                train_network(encoder, num_classes, loader, views, labels, offset, rate, tuning, took_a_step), banks_of
            )
            for rate in tuning.learning_rates
        ]
        return max(found, key=lambda tuned: tuned.validated(tuned.head))

    found = dict(_after_training(best(None), shares))
    balanced = best(shares)
    found["balanced_softmax"] = balanced.scored(balanced.head, {})
    settings = {"epochs": tuning.epochs, "seed": tuning.seed, "train_images": len(labels)}
    return {method: {**found[method], **settings} for method in METHODS}


def steps(loader: Loader, tuning: Tuning) -> int:
    """Of `finetune`, over all its trainings."""
    return 2 * len(tuning.learning_rates) * tuning.epochs * loader.steps_per_epoch


# --- training ---------------------------------------------------------------------------------------------------------


def train_network(
    encoder: nn.Module,
    num_classes: int,
    loader: Loader,
    views: Views,
    labels: Int64[Tensor, " n"],
    offset: Float64[Tensor, " c"] | None,
    rate: float,
    tuning: Tuning,
    took_a_step: Callable[[], None] = lambda: None,
) -> Network:
    """A copy of the encoder and a new head, trained together. offset: added to the logits, in training alone."""
    encoder = copy.deepcopy(encoder).train()
    device = next(encoder.parameters()).device
    head = _first_head(int(encoder.num_features), num_classes, tuning.seed).to(device)  # type: ignore[arg-type]
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=rate, momentum=tuning.momentum, weight_decay=tuning.weight_decay)
    moved = None if offset is None else offset.float().to(device)
    total = tuning.epochs * loader.steps_per_epoch
    for step, batch in loader.batches(0, total):
        optimizer.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / total)) / 2
        torch.manual_seed(seed_for(tuning.seed, "fine-tuning step", step))  # dropout and its like
        whole = batch.images
        images = send(whole, device) if isinstance(whole, Tensor) else tuple(send(crops, device) for crops in whole)
        logits = head(encoder(views(batch._replace(images=images), step // loader.steps_per_epoch)[0]))
        loss = F.cross_entropy(logits if moved is None else logits + moved, labels[batch.index].to(device))
        if not torch.isfinite(loss):
            raise TrainingStopped(
                f"The loss became {loss.item()} at step {step} of fine-tuning with a learning rate of {rate:g}; "
                "give smaller ones."
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        took_a_step()
    return Network(encoder.eval(), head, rate)


def _first_head(width: int, num_classes: int, seed: int) -> nn.Linear:
    """torch's default initialisation, drawn on the CPU so that every device starts from the same numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "fine-tuning head"))
        return nn.Linear(width, num_classes)


class _Tuned(NamedTuple):
    """A network seen from outside: its head and what its encoder makes of all images."""

    head: Head
    banks: Banks
    chosen: dict[str, Any]

    def validated(self, head: Head) -> float:
        """Mean accuracy over classes on validation images, 0 without any."""
        if self.banks.validation is None:
            return 0.0
        return mean_class_accuracy(
            predictions(head, self.banks.validation), self.banks.validation.labels, len(self.banks.train_counts)
        )

    def scored(self, head: Head, chosen: dict[str, Any]) -> dict[str, Any]:
        return {**scores(predictions(head, self.banks.test), self.banks), **self.chosen, **chosen}


def predictions(head: Head, bank: FeatureBank) -> Int64[Tensor, " n"]:
    return head.logits(bank.features.double()).argmax(dim=1)


def _seen(network: Network, banks_of: Callable[[nn.Module], Banks]) -> _Tuned:
    head = Head(network.head.weight.detach().cpu().double(), network.head.bias.detach().cpu().double())
    return _Tuned(head, banks_of(network.encoder), {"learning_rate": network.rate})


def _after_training(tuned: _Tuned, shares: Float64[Tensor, " c"]) -> Iterable[tuple[str, dict[str, Any]]]:
    """What can be made of a network trained by cross-entropy."""
    yield "ce", tuned.scored(tuned.head, {})
    validated = tuned.banks.validation is not None
    taus: Sequence[float] = TAUS if validated else (1.0,)
    makers: dict[str, Callable[[float], Head]] = {
        "logit_adjusted": lambda tau: adjusted(tuned.head, shares, tau),
        "tau_norm": lambda tau: tau_normalised(tuned.head, tau),
    }
    for method, make in makers.items():
        tau = max(taus, key=lambda tau: tuned.validated(make(tau)))  # used within the turn
        yield method, tuned.scored(make(tau), {"tau": tau})
    train = tuned.banks.train
    weight = class_balanced(train.labels, len(shares))
    heads = {
        C: fit_head(train.features.double(), train.labels, len(shares), C, weight=weight)
        for C in (C_GRID if validated else (DEFAULT_C,))
    }
    best = max(heads, key=lambda C: tuned.validated(heads[C]))
    yield "crt", tuned.scored(heads[best], {"C": best})
