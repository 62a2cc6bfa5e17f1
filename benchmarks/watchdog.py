"""What the watchdog costs of a training step.

    python benchmarks/watchdog.py --out benchmarks/results/watchdog-cpu.jsonl [--seconds 60]

On `cifar100-lt-small` at its own batch size (made-up pixels): a whole step as the engine takes it, and in the same turn
what the watchdog does in it: the copy of the buffers, the look at the gradient, and, at logged steps only, the look at
the embeddings. Shares are taken within a round (see README.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from evensphere.bench.clock import Task, interleaved
from evensphere.bench.names import EXACT
from evensphere.bench.rows import summarise, write_rows
from evensphere.bench.run import _context, _made_up
from evensphere.bench.subjects import Bench, set_up
from evensphere.data.source import Splits
from evensphere.engine.processes import Processes
from evensphere.engine.watchdog import Watchdog, geometry
from evensphere.recipes.building import build_training
from evensphere.recipes.recipe import get_recipe, with_precision, with_sizes
from evensphere.rundir import RunDir

STEP, BUFFERS, GRADIENT, EMBEDDINGS = "step", "copy of the buffers", "look at the gradient", "look at the embeddings"


def tasks_of(bench: Bench) -> dict[str, Task]:
    method, watchdog, device = bench.exact.method, Watchdog(), bench.fabric.device
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    gradients = [torch.randn_like(weight) for weight in weights]
    loss = torch.zeros((), device=device)
    embeddings = torch.randn(bench.exact.loader.batch_size, method.embedding_dim, device=device)

    def look() -> None:
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        watchdog.look(loss, weights)
        for weight in weights:
            weight.grad = None

    def shape() -> list[Tensor]:
        return list(geometry(embeddings).values())

    return {
        STEP: lambda: bench.step(EXACT),
        BUFFERS: lambda: watchdog.remember(method, device),
        GRADIENT: look,
        EMBEDDINGS: shape,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    recipe = get_recipe("cifar100-lt-small")
    splits = Splits(_made_up(recipe, 10_000))
    recipe = with_precision(with_sizes(recipe, splits.pretrain))
    fabric = Processes().fabric(recipe.precision)
    bench = set_up(recipe, build_training(recipe, splits, splits.pretrain, RunDir(Path.cwd())), fabric)
    measured = interleaved(tasks_of(bench), fabric.device, arguments.seconds)
    rows = [summarise(name, [1000 * value for value in values], "ms") for name, values in measured.items()]
    shares = {name: measured[name] for name in (BUFFERS, GRADIENT, EMBEDDINGS)}
    shares["watchdog, every step"] = [sum(pair) for pair in zip(shares[BUFFERS], shares[GRADIENT], strict=True)]
    for name, values in shares.items():
        share = [100 * value / step for value, step in zip(values, measured[STEP], strict=True)]
        rows.append(summarise(f"{name}, share", share, "% of the step"))
    for row in rows:
        print(row)
    if arguments.out is not None:
        write_rows(arguments.out, rows, _context(recipe, bench, "", made_up=True))


if __name__ == "__main__":
    main()
