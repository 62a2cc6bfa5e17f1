"""Heads on long-tailed labels against scikit-learn, closed forms and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.metrics.test_classify import bank, blobs
from torch import Tensor

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.heads import (
    Head,
    adjusted,
    balanced_softmax_head,
    ce_head,
    class_balanced,
    crt_head,
    fit_head,
    log_shares,
    logit_adjusted_head,
    long_tailed,
    tau_norm_head,
    tau_normalised,
)

HEADS = [ce_head, logit_adjusted_head, balanced_softmax_head, crt_head, tau_norm_head]


def tail(validation: bool = True) -> Banks:
    """Six overlapping classes, of 100 to 1 training images; validation and test images are balanced."""
    counts = [100, 40, 16, 6, 3, 1]
    return blobs(0.8, validation, num_train=600)._replace(train_counts=counts)


# The tail -------------------------------------------------------------------------------------------------------------


def test_the_tail_has_pretrainings_sizes() -> None:
    got = long_tailed(bank(600, 1), [100, 40, 16, 6, 3, 1])
    assert torch.bincount(got.labels).tolist() == [100, 40, 16, 6, 3, 1]
    assert not torch.equal(got.features, long_tailed(bank(600, 1), [100, 40, 16, 6, 3, 1], seed=1).features)


def test_a_smaller_bank_has_them_in_proportion() -> None:
    got = long_tailed(bank(60, 1), [100, 40, 16, 6, 3, 0])  # 10 of each class
    assert torch.bincount(got.labels, minlength=6).tolist() == [10, 4, 1, 1, 1, 0]


def test_a_tail_is_left_as_it_is() -> None:
    labels = torch.tensor([0] * 20 + [1] * 8 + [2] * 2)
    given = FeatureBank(torch.randn(30, 3), labels)
    assert torch.equal(long_tailed(given, [40, 16, 4]).features, given.features)


# Fits -----------------------------------------------------------------------------------------------------------------


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.tensor([0] * 40 + [1] * 15 + [2] * 5)
    return torch.randn(60, 4, generator=generator).double() + torch.eye(3, 4).double()[labels], labels


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_fits_are_scikit_learns(C: float, balanced: bool) -> None:
    features, labels = data()
    oracle = LogisticRegression(C=C, max_iter=5000, tol=1e-9, class_weight="balanced" if balanced else None)
    oracle.fit(features.numpy(), labels.numpy())
    got = fit_head(features, labels, 3, C, weight=class_balanced(labels, 3) if balanced else None)
    assert np.allclose(got.weight.numpy(), oracle.coef_, atol=1e-4)
    assert np.allclose(got.bias - got.bias.mean(), oracle.intercept_ - oracle.intercept_.mean(), atol=1e-4)


def test_an_offset_moves_the_bias_alone() -> None:
    """The bias is free: balanced softmax on convex heads is cross-entropy with log shares taken from its bias."""
    features, labels = data()
    shares = log_shares(labels, 3)
    plain, offset = fit_head(features, labels, 3, 1.0), fit_head(features, labels, 3, 1.0, offset=shares)
    assert torch.allclose(plain.weight, offset.weight, atol=1e-5)
    moved = adjusted(plain, shares, 1.0).bias - offset.bias
    assert torch.allclose(moved, moved.mean().expand(3), atol=1e-4)


def test_log_shares_and_class_weights() -> None:
    labels = torch.tensor([0, 0, 0, 2])
    assert log_shares(labels, 3).exp().tolist() == pytest.approx([3 / 5, 1 / 5, 1 / 5]), "an unseen class has one"
    weight = class_balanced(labels, 3)
    assert weight.tolist() == pytest.approx([2 / 3] * 3 + [2])
    assert float(weight.mean()) == pytest.approx(1)


def test_tau_takes_away_lengths() -> None:
    head = Head(torch.tensor([[3.0, 4.0], [0.0, 0.5]]).double(), torch.tensor([1.0, 2.0]).double())
    assert torch.allclose(tau_normalised(head, 1.0).weight, torch.tensor([[0.6, 0.8], [0.0, 1.0]]).double())
    assert torch.equal(tau_normalised(head, 0.0).weight, head.weight)
    assert torch.equal(tau_normalised(head, 0.5).bias, torch.zeros(2).double())


# As metrics -----------------------------------------------------------------------------------------------------------


def test_every_remedy_serves_rare_classes_better_than_cross_entropy() -> None:
    plain, *remedies = (head(tail()) for head in HEADS)
    assert plain["train_images"] == 166
    for got in remedies:
        assert got["few"] > plain["few"] + 5
        assert got["train_images"] == 166


def test_settings_are_chosen_on_validation_and_not_without() -> None:
    got = logit_adjusted_head(tail(validation=False))
    assert (got["C"], got["tau"]) == (0.1, 1.0)
    seen = logit_adjusted_head(tail())
    spoiled = tail()
    assert spoiled.validation is not None
    elsewhere = logit_adjusted_head(spoiled._replace(test=spoiled.test._replace(labels=spoiled.test.labels.flip(0))))
    assert (seen["C"], seen["tau"]) == (elsewhere["C"], elsewhere["tau"]), "the test labels choose nothing"


@pytest.mark.parametrize("head", HEADS)
def test_degenerate_features(head) -> None:  # type: ignore[no-untyped-def]
    banks = tail(validation=False)
    constant = banks._replace(train=banks.train._replace(features=torch.ones(600, 8)))
    assert 0 <= head(constant)["average"] <= 100
    with pytest.raises(InputError, match="NaN"):
        head(banks._replace(train=banks.train._replace(features=banks.train.features * torch.nan)))
    with pytest.raises(InputError, match="at least two classes"):
        head(banks._replace(train_counts=[5, 0, 0, 0, 0, 0]))
