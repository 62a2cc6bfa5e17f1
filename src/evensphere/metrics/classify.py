"""How well classes can be told apart in frozen features: nearest neighbours and linear probes.

Every metric here ends in `scores`: it predicts a class for each test image, once, with settings that were fixed or
chosen on the validation bank. Accuracies are in percent.

`logistic_probe` is the quick one, solved to its optimum; `paper_probe` is the protocol behind the published tables.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.errors import InputError
from evensphere.metrics.bank import Banks, FeatureBank
from evensphere.metrics.groups import GROUPS, class_groups, group_accuracy
from evensphere.metrics.intervals import balanced_accuracy, class_accuracy
from evensphere.ops.draw import permutation, seed_for

# Similarities held at a time by the nearest-neighbour search: 64 MiB in float32.
BLOCK_ENTRIES = 2**24

# Points: a class's interval that is wider says next to nothing of it. About ten test images make it narrower.
WIDEST = 50.0

# scikit-learn's C of the logistic probe, from strong to weak regularisation, and the one for no validation bank. On
# standardised features the best C hardly moves with the number of images (0.01 to 0.1 from 1,000 to 40,000).
C_GRID = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
DEFAULT_C = 0.1
# Only badly conditioned features need more: random convolutions, the worst case tried, lost 0.5 points by stopping.
MAX_ITERATIONS = 100


# Scores ---------------------------------------------------------------------------------------------------------------


def scores(predicted: Int64[Tensor, " n"], banks: Banks) -> dict[str, Any]:
    """What predictions for `banks.test` are worth; the part that all metrics' results share.

    Returns, in percent: "many", "medium", "few", "std", "std_sample", "average" as `groups.group_accuracy` defines
    them; "accuracy": share of right test images, equal to "average" on a balanced test set; "per_class": a list with
    None for a class without test images, which no mean counts. "test_images": number of test images in each group.
    "intervals": [low, high] of "many", "medium", "few" and "average" for other test images of these classes, however
    many each has (see `intervals.balanced_accuracy`). "unjudged": the classes of which the test images say next to
    nothing, their own interval being wider than `WIDEST` points. "predicted": `predicted` itself, as a list.
    """
    right, total = _right_and_total(predicted, banks.test.labels, len(banks.train_counts))
    per_class = _percent(right, total)
    groups = class_groups(banks.train_counts, banks.group_rule)
    members = {name: [c for c, group in enumerate(groups) if group == name] for name in GROUPS}
    members["average"] = list(range(len(groups)))
    return {
        **group_accuracy(per_class, banks.train_counts, banks.group_rule),
        "accuracy": 100 * sum(right) / sum(total),
        "per_class": per_class,
        "test_images": {name: sum(total[c] for c in members[name]) for name in GROUPS},
        "intervals": {name: _interval(right, total, classes) for name, classes in members.items()},
        "unjudged": [c for c in members["average"] if _width(right[c], total[c]) > WIDEST],
        "predicted": predicted.tolist(),
    }


def _interval(right: list[int], total: list[int], classes: list[int]) -> list[float] | None:
    found = balanced_accuracy([right[c] for c in classes], [total[c] for c in classes])
    return None if found is None else [100 * found.low, 100 * found.high]


def _width(right: int, total: int) -> float:
    found = class_accuracy(right, total)
    return 100.0 if found is None else 100 * (found.high - found.low)


def mean_class_accuracy(predicted: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], num_classes: int) -> float:
    """In percent, over the classes that occur in `labels`."""
    per_class = _percent(*_right_and_total(predicted, labels, num_classes))
    known = [accuracy for accuracy in per_class if accuracy is not None]
    return sum(known) / len(known)


def _right_and_total(
    predicted: Int64[Tensor, " n"], labels: Int64[Tensor, " n"], num_classes: int
) -> tuple[list[int], list[int]]:
    predicted, labels = predicted.cpu(), labels.cpu()
    right = torch.bincount(labels[predicted == labels], minlength=num_classes)
    return right.tolist(), torch.bincount(labels, minlength=num_classes).tolist()


def _percent(right: list[int], total: list[int]) -> list[float | None]:
    return [100 * r / n if n else None for r, n in zip(right, total, strict=True)]


# Nearest neighbours ---------------------------------------------------------------------------------------------------


def knn(banks: Banks, k: int = 20, temperature: float = 0.1) -> dict[str, Any]:
    """Weighted k-nearest-neighbour classification by cosine similarity (Wu et al., CVPR 2018, section 3.4).

    Each of the k most similar train images votes for its class with weight exp(similarity / temperature).
    k >= 1, cut to the size of the train bank; temperature > 0. Equally similar neighbours: the lower index first;
    equal votes: the lower class.

    Returns `scores` with "k" (as used) and "temperature".
    """
    check_banks(banks)
    _check_knn(k, temperature)
    predicted = _vote(banks.train, banks.test, k, temperature, len(banks.train_counts))
    return {**scores(predicted, banks), "k": min(k, len(banks.train.labels)), "temperature": temperature}


def _check_knn(k: int, temperature: float) -> None:
    if k < 1:
        raise InputError(f"k is {k}; nearest neighbours need k of at least 1.")
    if not temperature > 0:
        raise InputError(f"temperature is {temperature}; it must be greater than 0 (0.1 is usual).")


def _vote(train: FeatureBank, test: FeatureBank, k: int, temperature: float, num_classes: int) -> Int64[Tensor, " n"]:
    """The class with most votes for each test image. The table of all similarities is never held whole."""
    keys, queries = F.normalize(train.features, dim=1), F.normalize(test.features, dim=1)
    labels, predicted = train.labels.cpu(), []
    for rows in torch.split(queries, max(1, BLOCK_ENTRIES // len(keys))):
        similarity, neighbour = (part.cpu() for part in _nearest(rows @ keys.T, min(k, len(keys))))
        # Less the largest, so that a small temperature cannot overflow. On the CPU: sums in a fixed order.
        weight = ((similarity - similarity.amax(dim=1, keepdim=True)).double() / temperature).exp()
        votes = torch.zeros(len(rows), num_classes, dtype=torch.float64)
        predicted.append(votes.scatter_add_(1, labels[neighbour], weight).argmax(dim=1))
    return torch.cat(predicted)


def _nearest(
    similarity: Float[Tensor, "rows n"], k: int
) -> tuple[Float[Tensor, "rows {k}"], Int64[Tensor, "rows {k}"]]:
    """The k largest of each row and where they are; of equal ones, the first.

    topk leaves open which of several equal entries it takes. That matters only where the k-th and the next are equal,
    so only those rows (duplicates in the bank, a collapsed encoder) pay for a stable sort.
    """
    values, indices = similarity.topk(min(k + 1, similarity.shape[1]), dim=1)
    if k < similarity.shape[1]:
        tied = (values[:, k - 1] == values[:, k]).nonzero()[:, 0]
        if len(tied):
            indices[tied] = similarity[tied].sort(dim=1, descending=True, stable=True).indices[:, : k + 1]
    return values[:, :k], indices[:, :k]


# Linear probe, quick --------------------------------------------------------------------------------------------------


def logistic_probe(banks: Banks) -> dict[str, Any]:
    """Multinomial logistic regression with an L2 penalty on standardised features, solved by L-BFGS.

    Minimises C * (sum over train images of the cross-entropy) + |W|^2 / 2, each feature scaled to mean 0 and standard
    deviation 1 over the train bank, the intercept free. C climbs `C_GRID` from strong to weak regularisation, each fit
    starting from the one before, until the validation accuracy (mean over classes) falls; the best so far is kept, the
    smaller C of equals. Without a validation bank C is `DEFAULT_C`. The test bank is scored once.

    Returns `scores` with "C", "validation_accuracy" (percent; None without validation) and "converged" (False if the
    solver was stopped at `MAX_ITERATIONS`). Takes 45 to 60 s for 40,000 x 512 features, 100 classes on one core if
    badly conditioned, 10 to 20 s if not.
    """
    check_banks(banks)
    check_two_classes(banks.train)
    # here, for training is watched by kNN alone and need not wait for scikit-learn
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(banks.train.features.cpu().numpy())
    model = LogisticRegression(C=DEFAULT_C, max_iter=MAX_ITERATIONS, warm_start=True)
    if banks.validation is None:
        accuracy = None
        _fit(model, scaler, banks.train)
    else:
        model, accuracy = _climb(model, scaler, banks.train, banks.validation, len(banks.train_counts))
    return {
        **scores(_predict(model, scaler, banks.test), banks),
        "C": model.C,
        "validation_accuracy": accuracy,
        "converged": bool(model.n_iter_.max() < MAX_ITERATIONS),
    }


def _climb(model: Any, scaler: Any, train: FeatureBank, validation: FeatureBank, num_classes: int) -> tuple[Any, float]:
    """The fitted model that is best on validation, and its accuracy there."""
    best, best_accuracy = model, -1.0
    for C in C_GRID:
        _fit(model.set_params(C=C), scaler, train)
        accuracy = mean_class_accuracy(_predict(model, scaler, validation), validation.labels, num_classes)
        if accuracy < best_accuracy:
            break
        if accuracy > best_accuracy:
            best, best_accuracy = copy.deepcopy(model), accuracy
    return best, best_accuracy


def _fit(model: Any, scaler: Any, train: FeatureBank) -> None:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # reported as "converged" instead
        model.fit(scaler.transform(train.features.cpu().numpy()), train.labels.cpu().numpy())


def _predict(model: Any, scaler: Any, bank: FeatureBank) -> Int64[Tensor, " n"]:
    return torch.from_numpy(model.predict(scaler.transform(bank.features.cpu().numpy())))


# Linear probe, the paper's --------------------------------------------------------------------------------------------


def paper_probe(
    banks: Banks,
    epochs: int = 500,
    batch_size: int = 1000,
    learning_rate: float = 1e-2,
    final_learning_rate: float = 1e-6,
    weight_decay: float = 5e-6,
    seed: int = 0,
) -> dict[str, Any]:
    """The linear probe of the paper's tables (Zhou et al., NeurIPS 2023; the settings are those of the authors' code).

    A linear layer on the raw features, cross-entropy, Adam with L2 weight decay on all parameters, a learning rate that
    decays exponentially per epoch, the last partial batch kept. The layer after the last epoch is scored; nothing is
    chosen, on test or elsewhere.

    banks.train should hold features of images seen once with a random crop and flip, as the authors extract them: the
    same features in every epoch. Validation and test images are plain.

    epochs, batch_size >= 1; learning_rate, final_learning_rate > 0; weight_decay >= 0. The seed addresses the initial
    weights and the order of the images. Returns `scores` with these settings.
    """
    settings: dict[str, Any] = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "final_learning_rate": final_learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    check_banks(banks)
    check_two_classes(banks.train)
    _check_paper_settings(settings)
    layer = fit_paper_probe(banks.train, len(banks.train_counts), **settings)
    with torch.no_grad():
        predicted = torch.cat([layer(rows).argmax(dim=1) for rows in torch.split(banks.test.features, batch_size)])
    return {**scores(predicted, banks), **settings}


def fit_paper_probe(
    train: FeatureBank,
    num_classes: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    final_learning_rate: float,
    weight_decay: float,
    seed: int,
) -> nn.Linear:
    """The trained layer of `paper_probe`, on the device of the features."""
    layer = _initial_layer(train.features.shape[1], num_classes, seed).to(train.features)
    labels = train.labels.to(train.features.device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=learning_rate, weight_decay=weight_decay)
    # Evaluation often runs with gradients off; this turns them on, and indexing makes ordinary tensors of features that
    # were computed in inference mode.
    with torch.inference_mode(False):
        for epoch in range(epochs):
            optimizer.param_groups[0]["lr"] = decayed_rate(epoch, epochs, learning_rate, final_learning_rate)
            order = permutation(seed, "paper probe order", epoch, len(labels)).to(labels.device)
            for batch in torch.split(order, batch_size):
                optimizer.zero_grad()
                F.cross_entropy(layer(train.features[batch]), labels[batch]).backward()
                optimizer.step()
    return layer


def decayed_rate(epoch: int, epochs: int, start: float, end: float) -> float:
    """The learning rate of an epoch counted from 0: exponential from `start` in epoch 0 to `end` *after* the last.

    As in the authors' code, the factor per epoch is (end / start)^(1 / epochs), so the last epoch itself still runs one
    factor above `end`: at 1.019e-6 of 1e-6 with 500 epochs.
    """
    return float(start * (end / start) ** (epoch / epochs))


def _initial_layer(width: int, num_classes: int, seed: int) -> nn.Linear:
    """torch's default initialisation, drawn on the CPU so that every device starts from the same numbers."""
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_for(seed, "paper probe weights"))
        return nn.Linear(width, num_classes)


def _check_paper_settings(settings: dict[str, Any]) -> None:
    for name in ("epochs", "batch_size"):
        if settings[name] < 1:
            raise InputError(f"{name} of the paper's probe is {settings[name]}; it must be at least 1.")
    for name in ("learning_rate", "final_learning_rate"):
        if not settings[name] > 0:
            raise InputError(f"{name} of the paper's probe is {settings[name]}; it must be greater than 0.")
    if not settings["weight_decay"] >= 0:
        raise InputError(f"weight_decay of the paper's probe is {settings['weight_decay']}; it must be at least 0.")


# What a bank must be --------------------------------------------------------------------------------------------------


def check_banks(banks: Banks) -> None:
    for name, bank in (("train", banks.train), ("validation", banks.validation), ("test", banks.test)):
        if bank is not None:
            _check_bank(name, bank, len(banks.train_counts))
            _check_widths(banks.train, bank)


def _check_bank(name: str, bank: FeatureBank, num_classes: int) -> None:
    features, labels = bank.features, bank.labels
    if features.numel() == 0:
        raise InputError(f"The {name} bank is empty (shape {list(features.shape)}); it needs at least one image.")
    if len(labels) != len(features):
        raise InputError(
            f"The {name} bank has {len(features)} images but {len(labels)} labels; give one label per image."
        )
    if not bool(features.isfinite().all()):
        raise InputError(
            f"The {name} bank holds features that are NaN or infinite; the encoder has probably diverged,"
            " so use an earlier checkpoint."
        )
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise InputError(
            f"The {name} bank has labels from {int(labels.min())} to {int(labels.max())}; with {num_classes} classes"
            f" they must lie in 0..{num_classes - 1}."
        )


def _check_widths(train: FeatureBank, other: FeatureBank) -> None:
    if train.features.shape[1] != other.features.shape[1]:
        raise InputError(
            f"The train bank has features of width {train.features.shape[1]} but another bank has"
            f" {other.features.shape[1]}; all banks must come from one encoder."
        )


def check_two_classes(train: FeatureBank) -> None:
    if bool((train.labels == train.labels[0]).all()):
        raise InputError(
            f"All images of the train bank are of class {int(train.labels[0])}; a probe needs at least two classes."
        )
