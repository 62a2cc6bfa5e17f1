"""Features and banks: the right pixels, the right labels, an encoder left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import ArraySource, Batch, Source, Splits, UnreadableImage, take
from evensphere.engine.evaluate import (
    build_banks,
    evaluate_encoder,
    extract,
    features_of_views,
    validation_monitor,
)
from evensphere.errors import InputError

GREY = {"flip": 0.0, "jitter": (0.0, 0.0, 0.0, 0.0), "gray": 0.0, "mean": (0.0,), "std": (1.0,)}
VIEWS = Views(4, scale=(0.3, 1.0), **GREY)  # type: ignore[arg-type]


class Flatten(nn.Module):
    """Features are the pixels; remembers whether it was ever used in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.used_in_training_mode = False

    def forward(self, x: Tensor) -> Tensor:
        self.used_in_training_mode |= self.training
        return x.flatten(1) * self.weight


def source(count: int = 30, labelled: bool = True) -> ArraySource:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = (labels[:, None, None, None] * 80 + torch.randint(0, 20, (count, 1, 4, 4), generator=generator)).byte()
    return ArraySource("squares", images, labels if labelled else None, ("a", "b", "c") if labelled else None)


def test_features_are_those_of_the_plain_images_in_order() -> None:
    encoder, data = Flatten().train(), source()
    bank = extract(encoder, data, VIEWS)
    assert torch.allclose(bank.features, data.images.flatten(1).float() / 255)
    assert torch.equal(bank.labels, torch.arange(30) % 3)
    assert encoder.training
    assert not encoder.used_in_training_mode


def test_cropped_features_differ_and_repeat() -> None:
    bank = extract(Flatten(), source(), VIEWS, cropped=True)
    assert bank.features.shape == (30, 16)
    assert not torch.allclose(bank.features, extract(Flatten(), source(), VIEWS).features)
    assert torch.equal(bank.features, extract(Flatten(), source(), VIEWS, cropped=True).features)


def test_unreadable_images_are_left_out_with_their_labels() -> None:
    class Holes(Source):
        name, channels, image_size, class_names = "holes", 1, None, ("a", "b", "c")

        def __len__(self) -> int:
            return 30

        def read(self, i: int) -> Tensor:
            if i % 7 == 0:
                raise UnreadableImage("cut off")
            return source().read(i)

        def location(self, i: int) -> str:
            return str(i)

        def labels(self) -> Tensor:
            return torch.arange(30) % 3

    bank = extract(Flatten(), Holes(), VIEWS)
    kept = [i for i in range(30) if i % 7]
    assert torch.allclose(bank.features, source().images[kept].flatten(1).float() / 255)
    assert bank.labels.tolist() == [i % 3 for i in kept]


def test_metrics_see_the_splits_they_should() -> None:
    data = source(60)
    splits = Splits(
        pretrain=take(data, torch.tensor([0, 3, 6, 1, 4, 2])),
        probe=take(data, torch.arange(0, 30)),
        validation=take(data, torch.arange(30, 45)),
        test=take(data, torch.arange(45, 60)),
    )
    banks = build_banks(Flatten(), splits, VIEWS)
    assert banks.train_counts == [3, 2, 1]
    assert [len(bank.labels) for bank in (banks.train, banks.validation, banks.test) if bank] == [30, 15, 15]
    results, numbers, labels, predicted = evaluate_encoder(Flatten(), splits, VIEWS, ["knn", "probe", "probe_paper"])
    assert list(results) == list(predicted) == ["knn", "probe", "probe_paper"]
    assert results["probe"]["average"] == 100
    assert numbers.tolist() == list(range(15))
    assert labels.tolist() == predicted["probe"].tolist() == [i % 3 for i in range(45, 60)]
    with pytest.raises(InputError, match="did you mean 'probe'"):
        evaluate_encoder(Flatten(), splits, VIEWS, ["prob"])
    monitor = validation_monitor(splits, VIEWS, ["probe"], seed=0)
    assert monitor is not None
    assert monitor(Flatten()) == {"probe": 100, "probe_many": 100, "probe_medium": 100, "probe_few": 100}


class Files(Source):
    """The same squares, one by one, as files are read."""

    name, channels, image_size, class_names = "files", 1, None, ("a", "b", "c")

    def __len__(self) -> int:
        return 30

    def read(self, i: int) -> Tensor:
        return source().read(i)

    def location(self, i: int) -> str:
        return str(i)

    def labels(self) -> Tensor:
        return torch.arange(30) % 3


def test_several_views_are_those_of_training() -> None:
    data = source()
    got = features_of_views(Flatten(), data, VIEWS, count=3)
    assert got.shape == (30, 3, 16)
    batch = Batch(data.images, torch.arange(30))
    first, second = VIEWS(batch, 0)
    assert torch.equal(got[:, 0], first.flatten(1))
    assert torch.equal(got[:, 1], second.flatten(1))
    assert torch.equal(got[:, 2], VIEWS(batch, 1)[0].flatten(1))
    assert torch.allclose(features_of_views(Flatten(), Files(), VIEWS, count=3), got, atol=2 / 255), "but for rounding"


def test_descriptions_are_evaluated_and_not_watched() -> None:
    data = source(60)
    splits = Splits(
        data, take(data, torch.arange(30)), take(data, torch.arange(30, 45)), take(data, torch.arange(45, 60))
    )
    found = evaluate_encoder(Flatten(), splits, VIEWS, ["signals", "geometry"])
    assert found.predicted == {}
    assert found.results["signals"]["width"] == 16
    assert 1 <= found.results["signals"]["lidar"] <= 16
    assert found.results["geometry"]["inter_class_uniformity"]["average"] > 0
    with pytest.raises(InputError, match="signals was given, which is no accuracy"):
        validation_monitor(splits, VIEWS, ["knn", "signals"], seed=0)


def test_without_labels_there_is_nothing_to_evaluate() -> None:
    splits = Splits(source(labelled=False))
    assert validation_monitor(splits, VIEWS, ["knn"], seed=0) is None
    with pytest.raises(InputError, match="no labels"):
        build_banks(Flatten(), splits, VIEWS)
    with pytest.raises(InputError, match="no labels"):
        extract(Flatten(), source(labelled=False), VIEWS)
