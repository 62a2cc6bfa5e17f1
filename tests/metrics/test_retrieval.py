"""Retrieval against scikit-learn and a slow loop, and at its edges."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import average_precision_score
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.metrics import retrieval as module
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.retrieval import average_precision, retrieval


def banks(gallery: int = 40, queries: int = 30, classes: int = 4) -> Banks:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, 5, generator=generator)

    def bank(n: int) -> FeatureBank:
        labels = torch.randint(0, classes, (n,), generator=generator)
        return FeatureBank(centres[labels] + torch.randn(n, 5, generator=generator), labels)

    return Banks(bank(gallery), None, bank(queries), [100, 50, 20, 3], "thirds")


def test_average_precision_is_scikit_learns() -> None:
    given = banks()
    similarity = normalize(given.test.features, dim=1) @ normalize(given.train.features, dim=1).T
    per_class: dict[int, list[float]] = {}
    for row, label in zip(similarity, given.test.labels.tolist(), strict=True):
        score = average_precision_score((given.train.labels == label).numpy(), row.numpy())
        per_class.setdefault(label, []).append(100 * float(score))
    got = retrieval(given)
    assert got["per_class"] == pytest.approx([sum(per_class[c]) / len(per_class[c]) for c in range(4)])
    assert got["few"] == got["per_class"][3]


def test_recall_by_a_slow_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    given = banks()
    similarity = normalize(given.test.features, dim=1) @ normalize(given.train.features, dim=1).T
    hits: dict[int, list[bool]] = {}
    for row, label in zip(similarity, given.test.labels.tolist(), strict=True):
        nearest = sorted(range(40), key=lambda j: -float(row[j]))[:10]
        hits.setdefault(label, []).append(any(int(given.train.labels[j]) == label for j in nearest))
    whole = retrieval(given)
    assert whole["recall_at_10"]["few"] == pytest.approx(100 * sum(hits[3]) / len(hits[3]))
    monkeypatch.setattr(module, "BLOCK_ENTRIES", 90)
    assert retrieval(given) == whole, "in blocks of two queries"


def test_first_last_and_none() -> None:
    same = torch.tensor([[True, False, False], [False, False, True], [True, False, True], [False, False, False]])
    assert average_precision(same).tolist() == pytest.approx([1, 1 / 3, (1 + 2 / 3) / 2, 0])


def test_classes_without_queries_or_gallery_have_no_score() -> None:
    features, counts = torch.eye(3), [9, 5, 2]
    given = Banks(
        FeatureBank(features, torch.tensor([0, 1, 1])),
        None,
        FeatureBank(features, torch.tensor([0, 2, 2])),
        counts,
        "thirds",
    )
    got = retrieval(given)
    assert got["per_class"] == [100, None, None]
    assert got["few"] is None


def test_one_class_constant_and_nan_features() -> None:
    one = FeatureBank(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    assert retrieval(Banks(one, None, one, [3, 2, 1], "thirds"))["many"] == 100
    constant = Banks(banks().train._replace(features=torch.ones(40, 5)), None, banks().test, [100, 50, 20, 3], "thirds")
    assert 0 < retrieval(constant)["average"] < 60, "the gallery's order decides"
    bad = one._replace(features=torch.full((4, 3), torch.nan))
    with pytest.raises(InputError, match="NaN"):
        retrieval(Banks(bad, None, bad, [3, 2, 1], "thirds"))
