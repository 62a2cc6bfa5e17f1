"""Linear heads on frozen features from *long-tailed* labels: what a user has whose labels come from the tail itself.

Every head is fitted on a train bank that has the classes' sizes of pretraining, in proportion, and scored on the test
bank like any probe. The five are those of the long-tailed literature; on frozen features each is a convex problem,
solved to its optimum:

    ce                 cross-entropy as it is: the common classes win
    logit_adjusted     its logits less tau log(share of the class) (Menon et al., ICLR 2021, post hoc)
    balanced_softmax   cross-entropy of logits plus log(share), which are then left out (Ren et al., NeurIPS 2020)
    crt                every class drawn equally often (Kang et al., ICLR 2020): here, equal weights of the classes
    tau_norm           the weights of ce divided by their lengths to the power tau, no bias (Kang et al., ICLR 2020)

As the bias is free, balanced softmax comes to the same here as logit adjustment with tau 1; it differs where the
encoder learns too (engine/finetune.py). C, and tau, are those with the best validation accuracy (mean over classes);
without a validation bank they are `DEFAULT_C` and 1. Of equals the first is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from torch import Tensor

from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import C_GRID, DEFAULT_C, check_banks, check_two_classes, mean_class_accuracy, scores
from evensphere.ops.draw import permutation

TAUS = tuple(step / 4 for step in range(9))  # 0 to 2
MAX_ITERATIONS = 200


class Head(NamedTuple):
    """logits = features weight^T + bias."""

    weight: Float64[Tensor, "c d"]
    bias: Float64[Tensor, " c"]

    def logits(self, features: Float64[Tensor, "n d"]) -> Float64[Tensor, "n c"]:
        return torch.addmm(self.bias, features, self.weight.T)


# The long tail --------------------------------------------------------------------------------------------------------


def long_tailed(bank: FeatureBank, counts: list[int], seed: int = 0) -> FeatureBank:
    """As many images of each class as in pretraining, in proportion: the largest such part of the bank.

    counts: images of each class in pretraining. A class that has any keeps at least one, if the bank has one; which
    ones is addressed by the seed.
    """
    have = torch.bincount(bank.labels, minlength=len(counts)).tolist()
    scale = min((n / wanted for n, wanted in zip(have, counts, strict=True) if n and wanted), default=1.0)
    keep = torch.zeros(len(bank.labels), dtype=torch.bool)
    for c, wanted in enumerate(counts):
        own = (bank.labels == c).nonzero()[:, 0]
        number = min(len(own), max(1, int(wanted * min(scale, 1.0) + 1e-9))) if wanted else 0
        keep[own[permutation(seed, "long-tailed labels", c, len(own))[:number]]] = True
    return FeatureBank(bank.features[keep], bank.labels[keep])


# Heads ----------------------------------------------------------------------------------------------------------------


def fit_head(
    features: Float64[Tensor, "n d"],
    labels: Int64[Tensor, " n"],
    num_classes: int,
    C: float = DEFAULT_C,
    offset: Float64[Tensor, " c"] | None = None,
    weight: Float64[Tensor, " n"] | None = None,
) -> Head:
    """The minimum of C * sum_i weight_i CE(logits_i + offset, label_i) + |W|^2 / 2, the bias free, by L-BFGS.

    offset: added to the logits while fitting (balanced softmax). weight: of each image, > 0; None is 1.
    """
    total = float(len(labels) if weight is None else weight.sum())
    w = torch.zeros(num_classes, features.shape[1], dtype=torch.float64, requires_grad=True)
    b = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [w, b], max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        logits = torch.addmm(b if offset is None else b + offset, features, w.T)
        losses = F.cross_entropy(logits, labels, reduction="none")
        loss: Tensor = (losses if weight is None else losses * weight).sum() / total + w.square().sum() / (
            2 * C * total
        )
        loss.backward()
        return loss

    with torch.inference_mode(False), torch.enable_grad():
        solver.step(closure)
    return Head(w.detach(), b.detach())


def log_shares(labels: Int64[Tensor, " n"], num_classes: int) -> Float64[Tensor, " c"]:
    """log of each class's share of the labels; a class without any is taken to have one."""
    counts = torch.bincount(labels, minlength=num_classes).clamp(min=1).double()
    return (counts / counts.sum()).log()


def adjusted(head: Head, shares: Float64[Tensor, " c"], tau: float) -> Head:
    """Logits less tau * log shares (logit adjustment, post hoc)."""
    return head._replace(bias=head.bias - tau * shares)


def tau_normalised(head: Head, tau: float) -> Head:
    """Weights divided by their lengths to the power tau, without bias. A weight of length 0 stays 0."""
    length = head.weight.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return Head(head.weight / length**tau, torch.zeros_like(head.bias))


# As metrics -----------------------------------------------------------------------------------------------------------


def ce_head(banks: Banks) -> dict[str, Any]:
    """The linear probe on long-tailed labels. Returns `scores` with "C" and "train_images"."""
    tail = _Tail.of(banks)
    return tail.scored(*tail.best_c())


def logit_adjusted_head(banks: Banks) -> dict[str, Any]:
    """The linear probe, its logits moved by tau times the classes' log shares (logit adjustment).

    Returns `scores` with "C", "tau" and "train_images".
    """
    tail = _Tail.of(banks)
    head, chosen = tail.best_c()
    return tail.scored(*tail.best_tau(lambda tau: adjusted(head, tail.shares, tau), chosen))


def balanced_softmax_head(banks: Banks) -> dict[str, Any]:
    """The linear probe trained with balanced softmax.

    Returns `scores` with "C" and "train_images".
    """
    tail = _Tail.of(banks)
    return tail.scored(*tail.best_c(offset=tail.shares))


def crt_head(banks: Banks) -> dict[str, Any]:
    """The linear probe in whose training all classes weigh the same (cRT).

    Returns `scores` with "C" and "train_images".
    """
    tail = _Tail.of(banks)
    return tail.scored(*tail.best_c(weight=class_balanced(tail.labels, tail.classes)))


def tau_norm_head(banks: Banks) -> dict[str, Any]:
    """The linear probe, each class's weights divided by their length to the power tau (tau-norm).

    Returns `scores` with "C", "tau" and "train_images".
    """
    tail = _Tail.of(banks)
    head, chosen = tail.best_c()
    return tail.scored(*tail.best_tau(lambda tau: tau_normalised(head, tau), chosen))


def class_balanced(labels: Int64[Tensor, " n"], num_classes: int) -> Float64[Tensor, " n"]:
    """Weights of images by which all classes that occur weigh the same; their mean is 1."""
    counts = torch.bincount(labels, minlength=num_classes)
    return len(labels) / ((counts > 0).sum() * counts[labels].double())


class _Tail(NamedTuple):
    """Long-tailed labels with standardised features, and what settings are chosen and scored on."""

    features: Float64[Tensor, "n d"]
    labels: Int64[Tensor, " n"]
    validation: Float64[Tensor, "v d"] | None
    test: Float64[Tensor, "t d"]
    banks: Banks

    @classmethod
    def of(cls, banks: Banks) -> _Tail:
        check_banks(banks)
        train = long_tailed(banks.train, banks.train_counts)
        check_two_classes(train)
        mean, deviation = train.features.double().mean(0), train.features.double().std(0, correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)

        def standard(bank: FeatureBank) -> Tensor:
            return (bank.features.cpu().double() - mean) / deviation

        validation = None if banks.validation is None else standard(banks.validation)
        return cls(standard(train), train.labels, validation, standard(banks.test), banks)

    @property
    def classes(self) -> int:
        return len(self.banks.train_counts)

    @property
    def shares(self) -> Float64[Tensor, " c"]:
        return log_shares(self.labels, self.classes)

    def best_c(
        self, offset: Float64[Tensor, " c"] | None = None, weight: Float64[Tensor, " n"] | None = None
    ) -> tuple[Head, dict[str, Any]]:
        """The head whose C is best on validation, and that C."""
        grid = C_GRID if self.validation is not None else (DEFAULT_C,)
        heads = {C: fit_head(self.features, self.labels, self.classes, C, offset, weight) for C in grid}
        best = max(heads, key=lambda C: self._validated(heads[C]))
        return heads[best], {"C": best}

    def best_tau(self, make: Callable[[float], Head], chosen: dict[str, Any]) -> tuple[Head, dict[str, Any]]:
        """The head whose tau is best on validation, and that tau."""
        grid = TAUS if self.validation is not None else (1.0,)
        best = max(grid, key=lambda tau: self._validated(make(tau)))
        return make(best), {**chosen, "tau": best}

    def _validated(self, head: Head) -> float:
        if self.validation is None or self.banks.validation is None:
            return 0.0
        return mean_class_accuracy(
            head.logits(self.validation).argmax(dim=1), self.banks.validation.labels, self.classes
        )

    def scored(self, head: Head, chosen: dict[str, Any]) -> dict[str, Any]:
        predicted = head.logits(self.test).argmax(dim=1)
        return {**scores(predicted, self.banks), **chosen, "train_images": len(self.labels)}
