"""Fine-tuning on a long tail whose classes are known: what is trained, what is chosen, what is scored."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.loader import Loader
from evensphere.data.source import ArraySource
from evensphere.engine.evaluate import extract
from evensphere.engine.finetune import METHODS, Tuning, finetune, steps, train_network
from evensphere.errors import InputError
from evensphere.metrics.bank import Banks
from evensphere.metrics.heads import log_shares

VIEWS = Views(
    4, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, gray=0.0, mean=(0.5,), std=(0.3,),
    jitter=(0.0, 0.0, 0.0, 0.0), num_views=1,
)  # fmt: skip


class Linear(nn.Module):
    """The smallest encoder."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layer(x.flatten(1))
        return features


def source(counts: list[int], seed: int) -> ArraySource:
    """Noisy squares: each class is bright in another corner."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    images = torch.randint(0, 160, (len(labels), 1, 4, 4), generator=generator)
    for c, (y, x) in enumerate([(0, 0), (0, 2), (2, 0)]):
        images[labels == c, :, y : y + 2, x : x + 2] += 60
    return ArraySource("corners", images.byte(), labels, ("a", "b", "c"))


TRAIN, COUNTS = source([120, 12, 4], seed=0), [120, 12, 4]


def banks_of(encoder: nn.Module) -> Banks:
    train, validation, test = (
        extract(encoder, one, VIEWS) for one in (TRAIN, source([40] * 3, 1), source([60] * 3, 2))
    )
    return Banks(train, validation, test, COUNTS, "thirds")


def loader() -> Loader:
    return Loader(TRAIN, 32, VIEWS, seed=0)


def labels() -> Tensor:
    given = TRAIN.labels()
    assert given is not None
    return given


TUNING = Tuning(epochs=6, batch_size=32, learning_rates=(1e-6, 0.1))


def test_five_methods_choose_on_validation_and_leave_the_encoder_alone() -> None:
    encoder, before, took = Linear(), Linear(), []
    found = finetune(encoder, loader(), VIEWS, labels(), 3, banks_of, TUNING, lambda: took.append(1))
    assert list(found) == list(METHODS)
    assert len(took) == steps(loader(), TUNING) == 2 * 2 * 6 * 5
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), before.parameters(), strict=True))
    assert {one["learning_rate"] for one in found.values()} == {0.1}, "with the other it learns nothing"
    for method in ("logit_adjusted", "balanced_softmax", "crt", "tau_norm"):
        assert found[method]["few"] > found["ce"]["few"], method
        assert found[method]["train_images"] == 136
    assert found["ce"]["many"] > 90, "common classes win"
    again = finetune(encoder, loader(), VIEWS, labels(), 3, banks_of, TUNING)
    assert again == found, "the same seed, the same numbers"


def test_a_step_is_sgd_on_cross_entropy_with_the_offset() -> None:
    """One epoch of one batch by hand."""
    whole = Loader(TRAIN, 136, VIEWS, seed=0)
    tuning = Tuning(epochs=1, batch_size=136, momentum=0.0, weight_decay=0.0, learning_rates=(0.5,))
    offset = log_shares(labels(), 3)
    got = train_network(Linear(), 3, whole, VIEWS, labels(), offset, 0.5, tuning)
    still = Tuning(epochs=1, batch_size=136, learning_rates=(1e-30,))
    start = train_network(Linear(), 3, whole, VIEWS, labels(), None, 1e-30, still)
    features = start.encoder(VIEWS.plain(TRAIN.images))
    loss = F.cross_entropy(start.head(features) + offset.float(), labels())
    (gradient,) = torch.autograd.grad(loss, [start.head.weight])
    assert torch.allclose(got.head.weight, start.head.weight - 0.5 * gradient, atol=1e-5)


def test_without_validation_images_nothing_is_chosen() -> None:
    def unvalidated(encoder: nn.Module) -> Banks:
        return banks_of(encoder)._replace(validation=None)

    found = finetune(Linear(), loader(), VIEWS, labels(), 3, unvalidated, Tuning(1, 32, (0.01, 0.1)))
    assert {one["learning_rate"] for one in found.values()} == {0.01}
    assert (found["logit_adjusted"]["tau"], found["tau_norm"]["tau"], found["crt"]["C"]) == (1.0, 1.0, 0.1)


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(InputError, match="at least two classes"):
        finetune(Linear(), loader(), VIEWS, torch.zeros(136, dtype=torch.int64), 3, banks_of, TUNING)
    with pytest.raises(InputError, match="0 epochs"):
        Tuning(epochs=0)
    with pytest.raises(InputError, match="above 0"):
        Tuning(learning_rates=(0.1, 0.0))
