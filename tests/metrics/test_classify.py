"""kNN and the linear probes against scikit-learn and slow loops, their choices, their seeds and degenerate banks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from evensphere.errors import InputError
from evensphere.metrics import DESCRIPTIONS, METRICS, classify
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.classify import (
    decayed_rate,
    fit_paper_probe,
    knn,
    logistic_probe,
    paper_probe,
    scores,
)
from evensphere.ops.draw import permutation, seed_for

Metric = Callable[[Banks], dict[str, Any]]
SHARED_KEYS = {"many", "medium", "few", "std", "std_sample", "average", "per_class", "test_images"}
PAPER = {"learning_rate": 1e-2, "final_learning_rate": 1e-6, "weight_decay": 5e-6}


def quick_paper_probe(banks: Banks) -> dict[str, Any]:
    return paper_probe(banks, epochs=5, batch_size=16)


EVERY: list[Metric] = [knn, logistic_probe, quick_paper_probe]


def bank(num_images: int, draw: int, spread: float = 1.0, num_classes: int = 6) -> FeatureBank:
    """Overlapping clusters, one per class, in 8 dimensions of very different scale; as many images of each class."""
    generator = torch.Generator().manual_seed(draw)
    centres = torch.randn(num_classes, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(num_images) % num_classes
    noise = torch.randn(num_images, 8, generator=generator)
    return FeatureBank((centres[labels] + spread * noise) * torch.logspace(-2, 2, 8) + 3.0, labels)


def blobs(spread: float = 1.0, validation: bool = True, num_train: int = 120) -> Banks:
    return Banks(
        train=bank(num_train, 1, spread),
        validation=bank(240, 2, spread) if validation else None,
        test=bank(240, 3, spread),
        train_counts=[500, 200, 90, 50, 10, 4],
        group_rule="thirds",
    )


def numpy(bank: FeatureBank) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return bank.features.numpy(), bank.labels.numpy()


# Scores ---------------------------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    test = FeatureBank(torch.zeros(9, 2), torch.tensor([0, 0, 0, 0, 1, 2, 2, 4, 4]))
    banks = Banks(test, None, test, [300, 50, 40, 3, 2], "shots")
    got = scores(torch.tensor([0, 0, 0, 1, 2, 2, 2, 3, 4]), banks)
    few = got["intervals"].pop("few")
    assert few == pytest.approx([9.45, 90.55], abs=0.01), "Wilson's of 1 in 2"
    assert got.pop("intervals").keys() == {"many", "medium", "average"}
    assert got == {
        "many": 75.0,
        "medium": 50.0,  # of classes 1 (0 %) and 2 (100 %)
        "few": 50.0,  # of class 4 alone: class 3 has no test images
        "std": pytest.approx(np.std([75, 50, 50])),
        "std_sample": pytest.approx(np.std([75, 50, 50], ddof=1)),
        "average": 56.25,
        "accuracy": pytest.approx(600 / 9),
        "per_class": [75.0, 0.0, 100.0, None, 50.0],
        "test_images": {"many": 4, "medium": 3, "few": 2},
        "unjudged": [0, 1, 2, 3, 4],
        "predicted": [0, 0, 0, 1, 2, 2, 2, 3, 4],
    }


def test_a_group_without_test_images_has_no_interval_and_a_class_of_many_is_judged() -> None:
    test = FeatureBank(torch.zeros(20, 2), torch.tensor([0] * 18 + [1] * 2))
    got = scores(test.labels, Banks(test, None, test, [300, 50, 4], "shots"))
    assert got["intervals"]["few"] is None
    assert got["unjudged"] == [1, 2]


@pytest.mark.parametrize("metric", EVERY)
def test_average_is_the_accuracy_on_a_balanced_test_set(metric: Metric) -> None:
    got = metric(blobs())
    assert got["average"] == pytest.approx(got["accuracy"])
    assert 30 < got["average"] < 99  # neither chance (17) nor trivial
    assert got["average"] == pytest.approx(sum(got["per_class"]) / 6)


@pytest.mark.parametrize("name", METRICS)
def test_every_listed_metric_gives_the_shared_keys_as_json(name: str) -> None:
    module, function = METRICS[name].split(":")
    got = getattr(import_module(module), function)(blobs()._replace(views=torch.randn(12, 3, 8)))
    assert name in DESCRIPTIONS or got.keys() > SHARED_KEYS
    assert json.loads(json.dumps(got, allow_nan=False)) == got


# Nearest neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7, 20, 120])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_knn_equals_scikit_learn(k: int, temperature: float) -> None:
    banks = blobs()
    oracle = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / temperature))
    predicted = oracle.fit(*numpy(banks.train)).predict(numpy(banks.test)[0])
    got = knn(banks, k, temperature)
    assert got == {**scores(torch.from_numpy(predicted), banks), "k": k, "temperature": temperature}


def slow_knn(train: FeatureBank, test: FeatureBank, k: int, temperature: float, num_classes: int) -> list[int]:
    """Wu et al., section 3.4, one test image at a time."""
    predicted = []
    for query in test.features.double():
        near = []
        for i, key in enumerate(train.features.double()):
            norms = float(query.norm() * key.norm())
            near.append((-float(query @ key) / norms if norms else 0.0, i))
        votes = [0.0] * num_classes
        for negative, i in sorted(near)[:k]:
            votes[int(train.labels[i])] += math.exp(-negative / temperature)
        predicted.append(votes.index(max(votes)))
    return predicted


def test_knn_equals_a_slow_loop_with_a_zero_vector_in_each_bank() -> None:
    banks = blobs()
    banks.train.features[5] = 0
    banks.test.features[3] = 0
    expected = slow_knn(banks.train, banks.test, 9, 0.1, 6)
    assert knn(banks, k=9)["per_class"] == scores(torch.tensor(expected), banks)["per_class"]


def test_knn_is_blocked_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes, nearest = knn(blobs()), [], classify._nearest

    def recorded(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
        sizes.append(similarity.numel())
        return nearest(similarity, k)

    monkeypatch.setattr(classify, "BLOCK_ENTRIES", 1000)
    monkeypatch.setattr(classify, "_nearest", recorded)
    assert knn(blobs()) == whole
    assert max(sizes) <= 1000
    assert sum(sizes) == 240 * 120


@pytest.mark.parametrize(("k", "winner"), [(1, 2), (2, 2), (3, 2), (4, 1), (6, 0), (99, 0)])
def test_knn_ties_go_to_the_first_image_and_the_lowest_class(k: int, winner: int) -> None:
    train = FeatureBank(torch.ones(6, 4), torch.tensor([2, 2, 1, 1, 0, 0]))
    test = FeatureBank(torch.ones(3, 4), torch.tensor([0, 1, 2]))
    got = knn(Banks(train, None, test, [9, 5, 1], "thirds"), k)
    assert got["per_class"] == [100.0 if c == winner else 0.0 for c in range(3)]
    assert got["k"] == min(k, 6)


def test_knn_takes_the_first_of_ties_behind_nearer_neighbours() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.5, 0.1], [0.1, 0.2, 0.3, 0.4, 0.5]]).repeat(1, 200)
    values, indices = classify._nearest(similarity, 203)
    assert indices[0].tolist() == [*range(1, 1000, 5), 0, 2, 3]
    assert torch.equal(values, similarity.gather(1, indices))


def test_a_tiny_temperature_is_the_nearest_neighbour() -> None:
    assert knn(blobs(), k=20, temperature=1e-9)["per_class"] == knn(blobs(), k=1)["per_class"]


# Linear probe, quick --------------------------------------------------------------------------------------------------


def slow_logistic(x: Tensor, y: Tensor, C: float, num_classes: int) -> tuple[Tensor, Tensor]:
    """C * summed cross-entropy + |W|^2 / 2 by plain gradient descent with a line search, in float64."""
    weight = torch.zeros(x.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        optimizer.zero_grad()
        log_p = torch.log_softmax(x @ weight + bias, dim=1)
        loss = -C * log_p[range(len(y)), y].sum() + (weight**2).sum() / 2
        loss.backward()
        return loss

    optimizer.step(objective)
    return weight.detach(), bias.detach()


def test_logistic_probe_solves_its_objective() -> None:
    banks = blobs(validation=False)
    x, test = banks.train.features.double(), banks.test.features.double()
    mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
    weight, bias = slow_logistic((x - mean) / std, banks.train.labels, 0.1, 6)
    expected = scores(((test - mean) / std @ weight + bias).argmax(dim=1), banks)
    got = logistic_probe(banks)
    assert got == {**expected, "C": 0.1, "validation_accuracy": None, "converged": True}


@pytest.mark.parametrize(("spread", "num_train"), [(0.7, 600), (1.5, 36), (3.0, 600)])
def test_logistic_probe_climbs_to_the_best_c(spread: float, num_train: int) -> None:
    banks = blobs(spread, num_train=num_train)
    assert banks.validation is not None
    cold = []
    for C in classify.C_GRID:
        oracle = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-6, max_iter=1000))
        oracle.fit(*numpy(banks.train))
        cold.append((100 * oracle.score(*numpy(banks.validation)), C, oracle.predict(numpy(banks.test)[0])))
    fall = next((i for i in range(1, 5) if cold[i][0] < max(cold[:i])[0]), 5)
    accuracy, C, predicted = max(cold[:fall], key=lambda fit: fit[0])
    got = logistic_probe(banks)
    assert got["C"] == C
    assert got["validation_accuracy"] == pytest.approx(accuracy, abs=0.5)
    assert got["average"] == pytest.approx(scores(torch.from_numpy(predicted), banks)["average"], abs=0.5)


@pytest.mark.parametrize(
    ("accuracies", "chosen", "tried"),
    [
        ([50.0, 40.0, 90.0, 90.0, 90.0], 0, 2),  # stops at the first fall
        ([50.0, 50.0, 60.0, 60.0, 10.0], 2, 5),  # the stronger regularisation of equals
        ([0.0, 0.0, 0.0, 0.0, 0.1], 4, 5),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0, 5),
    ],
)
def test_how_c_is_chosen(accuracies: list[float], chosen: int, tried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(accuracies)
    monkeypatch.setattr(classify, "mean_class_accuracy", lambda *_: next(left))
    got = logistic_probe(blobs())
    assert (got["C"], got["validation_accuracy"]) == (classify.C_GRID[chosen], accuracies[chosen])
    assert len(list(left)) == 5 - tried


def test_logistic_probe_chooses_without_the_test_bank() -> None:
    banks = blobs()
    other = banks._replace(test=FeatureBank(banks.test.features, banks.test.labels.flip(0)))
    kept = ("C", "validation_accuracy", "converged")
    assert [logistic_probe(banks)[key] for key in kept] == [logistic_probe(other)[key] for key in kept]


def test_logistic_probe_ignores_scale_shift_and_constant_features() -> None:
    def moved(part: FeatureBank) -> FeatureBank:
        constant = torch.full((len(part.labels), 1), 0.1)
        return FeatureBank(torch.cat([part.features * 64 - 512, constant], dim=1), part.labels)

    banks = blobs(validation=False)
    got = logistic_probe(banks._replace(train=moved(banks.train), test=moved(banks.test)))
    assert got["per_class"] == logistic_probe(banks)["per_class"]


def test_logistic_probe_says_when_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "MAX_ITERATIONS", 2)
    assert logistic_probe(blobs())["converged"] is False


# Linear probe, the paper's --------------------------------------------------------------------------------------------


def slow_paper_probe(train: FeatureBank, epochs: int, batch_size: int, weight_decay: float, seed: int) -> Tensor:
    """The protocol written out, with Adam (Kingma & Ba, algorithm 1) by hand, in float64: weights and bias [C, D+1]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "paper probe weights"))
        layer = torch.nn.Linear(train.features.shape[1], 6)
    w = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().double()
    m, v, step = torch.zeros_like(w), torch.zeros_like(w), 0
    x = train.features.double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    for epoch in range(epochs):
        rate = 1e-2 * (1e-6 / 1e-2) ** (epoch / epochs)
        order = permutation(seed, "paper probe order", epoch, len(x))
        for start in range(0, len(x), batch_size):
            rows = order[start : start + batch_size]
            wrong = torch.softmax(x[rows] @ w.T, dim=1)
            wrong[range(len(rows)), train.labels[rows]] -= 1
            gradient = wrong.T @ x[rows] / len(rows) + weight_decay * w
            step += 1
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            w = w - rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    return w


@pytest.mark.parametrize(("epochs", "weight_decay", "seed"), [(1, 5e-6, 0), (4, 5e-6, 3), (5, 5e-6, 0), (3, 0.5, 0)])
def test_paper_probe_equals_a_slow_loop(epochs: int, weight_decay: float, seed: int) -> None:
    train, settings = bank(50, 1), {**PAPER, "weight_decay": weight_decay}
    layer = fit_paper_probe(train, 6, epochs=epochs, batch_size=16, seed=seed, **settings)
    got = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().double()
    assert torch.allclose(got, slow_paper_probe(train, epochs, 16, weight_decay, seed), atol=2e-5)


def test_paper_probe_scores_the_layer_after_the_last_epoch() -> None:
    banks = blobs()
    layer = fit_paper_probe(banks.train, 6, epochs=7, batch_size=32, seed=1, **PAPER)
    settings = {"epochs": 7, "batch_size": 32, "seed": 1, **PAPER}
    expected = {**scores(layer(banks.test.features).argmax(dim=1), banks), **settings}
    assert paper_probe(banks, epochs=7, batch_size=32, seed=1) == expected


def test_the_learning_rate_decays_from_1e_2_to_1e_6() -> None:
    assert decayed_rate(0, 500, 1e-2, 1e-6) == 1e-2
    assert decayed_rate(500, 500, 1e-2, 1e-6) == pytest.approx(1e-6)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-2)
    oracle = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=(1e-6 / 1e-2) ** (1 / 500))
    for epoch in range(500):
        assert decayed_rate(epoch, 500, 1e-2, 1e-6) == pytest.approx(oracle.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        oracle.step()


def test_paper_probe_is_a_function_of_its_seed_alone() -> None:
    def weight(seed: int) -> Tensor:
        return fit_paper_probe(bank(48, 1), 6, epochs=2, batch_size=16, seed=seed, **PAPER).weight

    before = torch.get_rng_state()
    first = weight(5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(weight(5), first)
    assert not torch.equal(weight(6), first)


@pytest.mark.parametrize("metric", EVERY)
def test_metrics_work_where_gradients_are_off(metric: Metric) -> None:
    expected = metric(blobs())
    with torch.inference_mode():
        made_there = blobs()
        assert metric(made_there) == expected
    assert metric(made_there) == expected
    with torch.no_grad():
        assert metric(blobs()) == expected


# Degenerate banks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", EVERY)
def test_constant_features_are_chance(metric: Metric) -> None:
    banks = blobs()
    for part in (banks.train, banks.validation, banks.test):
        assert part is not None
        part.features[:] = 0.3
    assert metric(banks)["average"] == pytest.approx(100 / 6)


@pytest.mark.parametrize("metric", EVERY)
def test_a_class_missing_from_train_is_never_right(metric: Metric) -> None:
    banks = blobs()
    kept = banks.train.labels != 5
    got = metric(banks._replace(train=FeatureBank(banks.train.features[kept], banks.train.labels[kept])))
    assert got["per_class"][5] == 0
    assert got["per_class"][0] > 0


@pytest.mark.parametrize("metric", EVERY)
def test_a_class_missing_from_test_enters_no_mean(metric: Metric) -> None:
    banks = blobs()
    kept = banks.test.labels < 4
    got = metric(banks._replace(test=FeatureBank(banks.test.features[kept], banks.test.labels[kept])))
    assert got["per_class"][4:] == [None, None]
    assert (got["few"], got["std"], got["test_images"]["few"]) == (None, None, 0)
    assert got["average"] == pytest.approx(sum(got["per_class"][:4]) / 4)


def one_class(part: FeatureBank) -> FeatureBank:
    return FeatureBank(part.features, torch.full_like(part.labels, 2))


def test_one_class_is_trivial_for_knn_and_refused_by_the_probes() -> None:
    banks = blobs()
    banks = banks._replace(train=one_class(banks.train), test=one_class(banks.test))
    assert knn(banks)["average"] == 100
    for probe in (logistic_probe, quick_paper_probe):
        with pytest.raises(InputError, match=r"are of class 2; a probe needs at least two classes\.$"):
            probe(banks)


def spoiled(part: FeatureBank, value: float) -> FeatureBank:
    features = part.features.clone()
    features[7, 3] = value
    return FeatureBank(features, part.labels)


SPOILERS: list[tuple[Callable[[FeatureBank], FeatureBank], str]] = [
    (lambda b: spoiled(b, float("nan")), "features that are NaN or infinite"),
    (lambda b: spoiled(b, float("-inf")), "features that are NaN or infinite"),
    (lambda b: FeatureBank(b.features[:0], b.labels[:0]), "is empty"),
    (lambda b: FeatureBank(b.features[:0], b.labels), "is empty"),
    (lambda b: FeatureBank(b.features, b.labels + 1), "labels from 1 to 6; with 6 classes they must lie in 0..5"),
    (lambda b: FeatureBank(b.features, b.labels - 1), "labels from -1 to 4"),
    (lambda b: FeatureBank(b.features, b.labels[1:]), "images but"),
]


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(("spoil", "message"), SPOILERS)
def test_a_bad_bank_is_one_sentence(
    metric: Metric, split: str, spoil: Callable[[FeatureBank], FeatureBank], message: str
) -> None:
    good = blobs()._asdict()
    with pytest.raises(InputError, match=rf"^The {split} bank .*{message}"):
        metric(Banks(**{**good, split: spoil(good[split])}))


def test_banks_of_two_encoders_are_refused() -> None:
    banks = blobs()
    narrow = FeatureBank(banks.test.features[:, :5], banks.test.labels)
    with pytest.raises(InputError, match="width 8 but another bank has 5"):
        knn(banks._replace(test=narrow))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs of the paper's probe is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size .* at least 1"),
        ({"learning_rate": 0.0}, "learning_rate .* greater than 0"),
        ({"final_learning_rate": -1.0}, "final_learning_rate .* greater than 0"),
        ({"weight_decay": float("nan")}, "weight_decay .* at least 0"),
    ],
)
def test_bad_settings_of_the_paper_probe(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        paper_probe(blobs(), **settings)


@pytest.mark.parametrize(("settings", "message"), [((0, 0.1), "k is 0"), ((5, 0.0), "temperature is 0")])
def test_bad_settings_of_knn(settings: tuple[int, float], message: str) -> None:
    banks = blobs()
    with pytest.raises(InputError, match=message):
        knn(banks, *settings)
