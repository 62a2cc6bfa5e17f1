"""What pi costs, and how far a streaming pi is from an exact one when the data move.

    python benchmarks/population.py --out population.jsonl [--quick]

Run by hand; JSON lines, one per measurement. Times are CPU time of the process with one thread, so that they hold on a
busy machine; each is the median of `n` repeats that take turns with those of the other ways (min and max beside it).

cost    of a step (B images taken in) and of an estimate of pi, in seconds, and the bytes that are kept, for N images, K
        anchors: exact in float32 and bfloat16, streaming, and a loop over the images of the batch as the reference code
        has it (its estimate goes through all N x K scores).
drift   images of classes, as many of each or long-tailed, whose centres wander: the total-variation distance between
        pi, estimated at the end of each epoch, and the shares of the regions in which the images' true scores then lie.
        Of streaming pi with momenta per step, of exact pi with momenta per visit; mean over the later half of the
        epochs, median over seeds. "still" is the same with centres at rest, where what is left is the views' noise and,
        for streaming, the batches it has forgotten.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.population import ExactPopulation, Population, StreamingPopulation

K, B = 100, 512


class ReferenceLoop:
    """One image at a time, written from the description of the reference code: an average of each image's scores is
    kept, and pi is the histogram of where the averages are largest. (It starts from zeros, theirs from whatever was in
    memory.)"""

    def __init__(self, num_samples: int, num_anchors: int) -> None:
        self.scores = torch.zeros(num_samples, num_anchors)

    def update(self, index: Tensor, scores: Tensor, warming_up: bool) -> None:
        momentum = 0.9 if warming_up else 0.999
        for place, image in enumerate(index):
            self.scores[image] = momentum * self.scores[image] + (1 - momentum) * scores[place]

    def estimate(self) -> Tensor:
        return torch.bincount(self.scores.argmax(1), minlength=self.scores.shape[1]) / len(self.scores)

    def state_dict(self) -> dict[str, Tensor]:
        return {"scores": self.scores}


WAYS: dict[str, Callable[[int], Any]] = {
    "exact float32": lambda n: ExactPopulation(n, K),
    "exact bfloat16": lambda n: ExactPopulation(n, K, dtype=torch.bfloat16),
    "streaming": lambda n: StreamingPopulation(K),
    "reference loop": lambda n: ReferenceLoop(n, K),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a JSON-lines file to append to")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = {"device": f"cpu, 1 thread ({platform.processor() or platform.machine()})", "clock": "process CPU time"}
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    with arguments.out.open("a") as file:
        for row in chain(costs(arguments.quick), drifts(arguments.quick)):
            line = json.dumps(row | machine | versions)
            print(line, flush=True)
            file.write(line + "\n")


# --- cost -------------------------------------------------------------------------------------------------------------


def costs(quick: bool) -> Iterator[dict[str, Any]]:
    for num_samples in (10**4,) if quick else (10**4, 10**5, 10**6):
        populations = {name: make(num_samples) for name, make in WAYS.items()}
        batch = iter(range(10**9))
        for population in populations.values():
            for _ in range(3):
                population.update(*_batch(next(batch), num_samples), warming_up=True)
        steps: dict[str, list[float]] = {name: [] for name in WAYS}
        estimates: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(7):
            for name, population in populations.items():
                loops = 3 if name == "reference loop" else 50
                batches = [_batch(next(batch), num_samples) for _ in range(loops)]
                steps[name].append(_seconds(partial(_take_in, population, batches)) / loops)
                estimates[name].append(_seconds(population.estimate))
        for name, population in populations.items():
            kept = sum(tensor.nbytes for tensor in population.state_dict().values())
            kept += population.places.nbytes if isinstance(population, ExactPopulation) else 0
            where = {"kind": "cost", "way": name, "N": num_samples, "K": K, "B": B, "bytes": kept}
            for part, seconds in (("step", steps[name]), ("estimate", estimates[name])):
                what = f"{part}, {num_samples:,} images, {name}"
                yield {"what": what} | where | {"part": part} | _spread(seconds, "s")


def _take_in(population: Any, batches: list[tuple[Tensor, Tensor]]) -> None:
    for index, scores in batches:
        population.update(index, scores, warming_up=True)


def _batch(number: int, num_samples: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    index = torch.randint(num_samples, (2 * B,), generator=generator).unique()[:B]
    return index, torch.randn(len(index), K, generator=generator)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _spread(values: list[float], unit: str) -> dict[str, Any]:
    ends = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {"n": len(values)} | {name: float(f"{value:.4g}") for name, value in ends.items()} | {"unit": unit}


# --- drift ------------------------------------------------------------------------------------------------------------


def drifts(quick: bool) -> Iterator[dict[str, Any]]:
    seeds = range(1) if quick else range(5)
    epochs, num_samples = (6, 2048) if quick else (40, 10_240)
    sizes = {"N": num_samples, "K": K, "B": B, "epochs": epochs}
    for drift, skew in product(("still", "slow", "fast"), ("even", "zipf")):
        distances: dict[str, list[float]] = {}
        for seed in seeds:
            for name, distance in _distances(World(drift, skew, seed, num_samples), epochs, num_samples).items():
                distances.setdefault(name, []).append(distance)
        for name, values in distances.items():
            what = f"{drift}, {skew} classes, {name}"
            where = {"what": what, "kind": "drift", "way": name, "drift": drift, "skew": skew}
            yield where | sizes | _spread(values, "total variation")


def _distances(world: World, epochs: int, num_samples: int) -> dict[str, float]:
    """Of each way, the mean over the later half of the epochs."""
    populations: dict[str, Population] = {
        f"streaming {momentum}": StreamingPopulation(K, momentum) for momentum in (0.9, 0.97, 0.99, 0.997)
    }
    for momentum in (0.0, 0.9, 0.999):
        populations[f"exact float32 {momentum}"] = ExactPopulation(num_samples, K, (momentum, momentum))
    for momentum in (0.9, 0.999):
        populations[f"exact bfloat16 {momentum}"] = ExactPopulation(
            num_samples, K, (momentum, momentum), dtype=torch.bfloat16
        )
    found: dict[str, list[float]] = {name: [] for name in populations}
    for epoch in range(epochs):
        order = torch.randperm(num_samples, generator=world.generator)
        for index in order.split(B):
            world.move(B / num_samples)
            scores = world.scores(index, noise=0.3)  # a view of the images: as they are, and something random
            for population in populations.values():
                population.update(index, scores, warming_up=False)
        truth = _shares(world.scores(torch.arange(num_samples), noise=0.0))
        for name, population in populations.items():
            if epoch >= epochs // 2:
                found[name].append(0.5 * (population.estimate() - truth).abs().sum().item())
    return {name: statistics.fmean(values) for name, values in found.items()}


def _shares(scores: Tensor) -> Tensor:
    return torch.bincount(scores.argmax(1), minlength=K) / len(scores)


class World:
    """Images of 200 classes around centres on the sphere that wander.

    drift: the angle that a centre walks in an epoch, about: still 0, slow 6 degrees, fast 30 degrees.
    skew: of the classes' shares; "zipf" gives the c-th 1/c.
    """

    def __init__(self, drift: str, skew: str, seed: int, num_samples: int, dim: int = 128, classes: int = 200) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.speed = {"still": 0.0, "slow": 0.1, "fast": 0.5}[drift]
        shares = torch.arange(1, classes + 1) ** {"even": 0.0, "zipf": -1.0}[skew]
        self.label = torch.multinomial(shares, num_samples, replacement=True, generator=self.generator)
        self.centres = normalize(torch.randn(classes, dim, generator=self.generator), dim=1)
        self.offset = 0.5 * torch.randn(num_samples, dim, generator=self.generator) / dim**0.5
        self.heading = torch.randn(classes, dim, generator=self.generator) / dim**0.5
        self.anchors = geometric_uniform(K, dim)

    def move(self, epochs: float) -> None:
        """Onwards on a circle of its own, for each centre."""
        self.centres = normalize(self.centres + self.speed * epochs * self.heading, dim=1)
        across = (self.heading * self.centres).sum(1, keepdim=True) * self.centres
        self.heading = normalize(self.heading - across, dim=1)

    def scores(self, index: Tensor, noise: float) -> Tensor:
        embeddings = self.centres[self.label[index]] + self.offset[index]
        embeddings = (
            embeddings + noise * torch.randn(embeddings.shape, generator=self.generator) / embeddings.shape[1] ** 0.5
        )
        return normalize(embeddings @ self.anchors.T, dim=1)


if __name__ == "__main__":
    main()
