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


def bursts(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(image of each row, weight of each row): 40 images, the i-th as a burst of 1 to 5 copies."""
    copies = torch.randint(1, 6, (40,), generator=generator)
    image = torch.arange(40).repeat_interleave(copies)
    return image, 1 / copies[image]


def test_half_precision_follows_small_steps_as_full_precision_does() -> None:
    """A step of a thousandth is less than bfloat16's digits, so rounding to the nearest would never move."""
    full, half = ExactPopulation(64, 2), ExactPopulation(64, 2, dtype=torch.bfloat16)
    index = torch.arange(64)
    for population in (full, half):
        population.update(index, torch.tensor([[0.8, 0.6]]).repeat(64, 1), warming_up=True)
        for _ in range(700):
            population.update(index, torch.tensor([[0.0, 1.0]]).repeat(64, 1), warming_up=False)
    error = half.memory.values.float().mean(0) - full.memory.values.mean(0)
    assert error.abs().max() < 0.01
    assert torch.equal(half.places, full.places)


def test_half_precision_goes_on_as_it_would_have() -> None:
    once, again = ExactPopulation(9, 3, dtype=torch.bfloat16), ExactPopulation(9, 3, dtype=torch.bfloat16)
    scores = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    for batch in scores[:2]:
        once.update(torch.arange(9), batch, warming_up=False)
    again.load_state_dict(once.state_dict())
    for batch in scores[2:]:
        for population in (once, again):
            population.update(torch.arange(9), batch, warming_up=False)
    assert torch.equal(once.memory.values, again.memory.values)


@pytest.mark.parametrize("floor", [0.0, 3.0])
def test_copies_that_share_a_weight_of_one_count_as_one_image(floor: float) -> None:
    """Every image repeated m times at weight 1/m, visited in any order, gives the pi of the images once each."""
    generator = torch.Generator().manual_seed(0)
    image, weights = bursts(generator)
    burst = ExactPopulation(len(image), 6, floor=floor, sample_weights=weights)
    once = ExactPopulation(40, 6, floor=floor)
    uneven = ExactPopulation(len(image), 6, floor=floor)
    for _ in range(3):
        scores = torch.randn(40, 6, generator=generator)
        once.update(torch.arange(40), scores, warming_up=True)
        for index in torch.randperm(len(image), generator=generator).split(7):
            burst.update(index, scores[image[index]], warming_up=True)
            uneven.update(index, scores[image[index]], warming_up=True)
        assert torch.allclose(burst.estimate(), once.estimate(), atol=1e-6)
    assert not torch.allclose(uneven.estimate(), once.estimate(), atol=1e-2)


def test_streaming_counts_copies_as_one_image_too() -> None:
    generator = torch.Generator().manual_seed(0)
    image, weights = bursts(generator)
    burst, once = StreamingPopulation(6, 0.9, 1.0, weights), StreamingPopulation(6, 0.9, 1.0)
    for _ in range(20):
        scores = torch.randn(40, 6, generator=generator)
        burst.update(torch.arange(len(image)), scores[image], warming_up=True)
        once.update(None, scores, warming_up=True)
        assert torch.allclose(burst.estimate(), once.estimate(), atol=1e-6)


def test_streaming_weighs_whole_batches_by_what_is_in_them() -> None:
    """Of a batch of two images that count 0.1 and one of two that count 1, the second decides; without an index all
    count 1."""
    population = StreamingPopulation(4, 0.999, sample_weights=torch.tensor([0.1, 0.1, 1.0, 1.0]))
    population.update(torch.tensor([0, 1]), one_hot(0, 0), warming_up=True)
    population.update(torch.tensor([2, 3]), one_hot(1, 1), warming_up=True)
    assert torch.allclose(population.estimate(), torch.tensor([0.1, 1, 0, 0]) / 1.1, atol=1e-3)
    population.update(None, one_hot(2, 2), warming_up=True)
    assert torch.allclose(population.estimate(), torch.tensor([0.1, 1, 1, 0]) / 2.1, atol=1e-3)


def test_weights_of_one_change_no_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    ones = torch.ones(50)
    pairs = (
        (ExactPopulation(50, 6), ExactPopulation(50, 6, sample_weights=ones)),
        (StreamingPopulation(6), StreamingPopulation(6, sample_weights=ones)),
    )
    for _ in range(5):
        scores = torch.randn(50, 6, generator=generator)
        for plain, weighted in pairs:
            for index in torch.randperm(50, generator=generator).split(20):
                plain.update(index, scores[index], warming_up=True)
                weighted.update(index, scores[index], warming_up=True)
            assert torch.equal(plain.estimate(), weighted.estimate())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_running_count_is_the_histogram_of_the_memory(dtype: torch.dtype) -> None:
    """Also after loading, where only the memory was saved."""
    generator = torch.Generator().manual_seed(0)
    population, loaded = (ExactPopulation(60, 6, dtype=dtype) for _ in range(2))
    for step in range(20):
        index = torch.randperm(60, generator=generator)[:13]
        population.update(index, torch.randn(13, 6, generator=generator), warming_up=step % 2 == 0)
        memory = population.memory
        counts = torch.bincount(memory.values[memory.seen].argmax(1), minlength=6)
        assert torch.equal(population.estimate(), counts / counts.sum())
        loaded.load_state_dict(population.state_dict())
        assert torch.equal(loaded.estimate(), population.estimate())


def test_an_index_beyond_the_weights_is_refused() -> None:
    with pytest.raises(InputError, match="num_samples=3"):
        StreamingPopulation(4, sample_weights=torch.ones(3)).update(torch.tensor([3]), one_hot(1), warming_up=True)


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
