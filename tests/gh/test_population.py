"""Population statistics: what was seen, and nothing else."""

from __future__ import annotations

import pytest
import torch

from evensphere.errors import InputError
from evensphere.gh.population import ExactPopulation, StreamingPopulation


def one_hot(*regions: int, width: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(regions), width).float()


def test_an_image_never_seen_is_not_counted() -> None:
    population = ExactPopulation(num_samples=100, num_anchors=4)
    assert torch.equal(population.estimate(), torch.full((4,), 0.25)), "before anything is seen all shares are equal"
    population.update(torch.tensor([3, 50, 7]), one_hot(1, 1, 2), warming_up=True)
    assert torch.allclose(population.estimate(), torch.tensor([0, 2 / 3, 1 / 3, 0]))


def test_the_first_visit_copies_and_later_ones_average() -> None:
    population = ExactPopulation(5, 4, momentum=(0.9, 0.5))
    population.update(torch.tensor([2]), one_hot(0), warming_up=True)
    assert torch.equal(population.memory.values[2], one_hot(0)[0])
    population.update(torch.tensor([2]), one_hot(3), warming_up=True)
    assert torch.allclose(population.memory.values[2], 0.9 * one_hot(0)[0] + 0.1 * one_hot(3)[0])
    population.update(torch.tensor([2]), one_hot(3), warming_up=False)
    assert torch.allclose(population.memory.values[2], 0.45 * one_hot(0)[0] + 0.55 * one_hot(3)[0])
    assert torch.equal(population.estimate(), one_hot(3)[0]), "the image has moved"
    assert not population.memory.seen[[0, 1, 3, 4]].any()


def test_the_floor_is_added_to_every_count() -> None:
    population = ExactPopulation(5, 4, floor=100)
    population.update(torch.tensor([0, 1]), one_hot(1, 1), warming_up=True)
    assert torch.allclose(population.estimate(), torch.tensor([100, 102, 100, 100]) / 402)


def test_a_half_precision_memory_finds_the_same_regions() -> None:
    scores = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    full, half = ExactPopulation(50, 8), ExactPopulation(50, 8, dtype=torch.bfloat16)
    for population in (full, half):
        population.update(torch.arange(50), scores, warming_up=True)
    assert half.memory.values.dtype == torch.bfloat16
    assert (full.estimate() - half.estimate()).abs().sum() < 0.1


@pytest.mark.parametrize("index", [None, torch.tensor([5])])
def test_a_missing_or_impossible_index_is_refused(index: torch.Tensor | None) -> None:
    with pytest.raises(InputError):
        ExactPopulation(5, 4).update(index, one_hot(1), warming_up=True)


def test_streaming_forgets_its_start_and_finds_the_shares() -> None:
    population = StreamingPopulation(4, momentum=0.9)
    assert torch.equal(population.estimate(), torch.full((4,), 0.25))
    population.update(None, one_hot(3, 3), warming_up=True)
    assert torch.allclose(population.estimate(), one_hot(3)[0]), "one batch is not diluted by the zeros before it"
    for _ in range(200):
        population.update(None, one_hot(0, 0, 0, 1), warming_up=False)
    assert torch.allclose(population.estimate(), torch.tensor([0.75, 0.25, 0, 0]), atol=1e-3)


def test_streaming_and_exact_agree_on_data_that_stand_still() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(600, 5, generator=generator) + torch.tensor([1.5, 1, 0.5, 0, -0.5])
    exact, streaming = ExactPopulation(600, 5), StreamingPopulation(5, momentum=0.99)
    for _ in range(100):
        for index in torch.randperm(600, generator=generator).chunk(10):
            exact.update(index, scores[index], warming_up=True)
            streaming.update(None, scores[index], warming_up=True)
    assert (exact.estimate() - streaming.estimate()).abs().max() < 0.02
