"""Few-shot probes: which images they take, and that they are the logistic probe of those."""

from __future__ import annotations

import pytest
import torch
from tests.metrics.test_classify import blobs

from evensphere.errors import InputError
from evensphere.metrics.bank import FeatureBank
from evensphere.metrics.classify import logistic_probe
from evensphere.metrics.few_shot import few_of_each, few_shot_probe, five_shot_probe


def test_so_many_of_each_class_and_others_in_each_draw() -> None:
    bank = FeatureBank(torch.arange(23.0)[:, None], torch.tensor([0] * 10 + [2] * 10 + [5] * 3))
    first = few_of_each(bank, 4, seed=0, draw=0)
    assert torch.bincount(first.labels).tolist() == [4, 0, 4, 0, 0, 3], "a class of three gives all it has"
    assert torch.equal(first.labels, bank.labels[first.features[:, 0].long()])
    assert torch.equal(first.features, few_of_each(bank, 4, 0, 0).features)
    assert not torch.equal(first.features, few_of_each(bank, 4, 0, 1).features)


def test_all_images_of_each_class_are_the_whole_bank() -> None:
    banks = blobs(validation=False)
    whole, got = logistic_probe(banks), few_shot_probe(banks, shots=1000, draws=2)
    assert got["per_class"] == whole["per_class"]
    assert (got["average"], got["accuracy"], got["draws_std"]) == (whole["average"], whole["accuracy"], 0)


def test_draws_are_averaged_and_validation_is_not_looked_at() -> None:
    banks = blobs()
    got = five_shot_probe(banks)
    each = [
        logistic_probe(banks._replace(train=few_of_each(banks.train, 5, 0, draw), validation=None)) for draw in range(5)
    ]
    assert got["draws"] == [one["average"] for one in each]
    assert got["average"] == pytest.approx(sum(got["draws"]) / 5)
    assert got["few"] == pytest.approx(sum(one["few"] for one in each) / 5)
    assert got == five_shot_probe(banks._replace(validation=None))
    assert not {"predicted", "intervals", "unjudged"} & got.keys(), "one draw's would not be those of the mean"


def test_mistakes() -> None:
    with pytest.raises(InputError, match="0 shots"):
        few_shot_probe(blobs(), shots=0)
    one = blobs()
    with pytest.raises(InputError, match="at least two classes"):
        five_shot_probe(one._replace(train=FeatureBank(one.train.features, torch.zeros_like(one.train.labels))))
    with pytest.raises(InputError, match="NaN"):
        five_shot_probe(one._replace(train=one.train._replace(features=one.train.features * torch.nan)))
