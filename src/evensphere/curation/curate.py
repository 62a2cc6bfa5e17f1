"""A flatter subset of a collection, or sampling weights, for anybody's trainer.

look      every image once: features and near-duplicates (curation/look.py)
tree      hierarchical k-means of one image of each group of near-duplicates (curation/hierarchy.py)
shares    how much of each image is drawn when `size` are drawn evenly from the tree: the weights
subset    that many images, each with its share for probability
flatness  effective number of clusters before and after, of another clustering than the tree's
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from evensphere import __version__
from evensphere.curation.hierarchy import default_levels, draw_evenly, even_shares, tree
from evensphere.curation.look import Look, look_at
from evensphere.curation.written import write_table
from evensphere.disk import atomic_write, make_folder
from evensphere.errors import InputError
from evensphere.metrics.cluster import nearest_centre
from evensphere.metrics.signals import effective_number
from evensphere.ops.draw import permutation, seed_for
from evensphere.recipes.frozen import frozen

_JUDGES = 3  # divisions into cells that flatness is measured by
_CELLS = 1000  # of each, at most


class Flatness(NamedTuple):
    """Effective number (exp of the entropy) of cells, means over several divisions that the tree knows nothing of.

    cells: in each. before: of the collection. random: of as many images drawn at random. after: of the subset.
    sizes: images of the first division's cells, [2, cells]: in the collection, in the subset.
    """

    cells: int
    before: float
    random: float
    after: float
    sizes: Int64[Tensor, "2 cells"]


@dataclass(frozen=True)
class Curated:
    """chosen: numbers in `look`, ascending. weights: of every image in `look`, in [0, 1], summing to the size.
    levels: numbers of clusters.
    """

    chosen: Int64[Tensor, " size"]
    weights: Float64[Tensor, " n"]
    levels: list[int]
    flatness: Flatness
    look: Look
    seed: int

    @property
    def locations(self) -> list[str]:
        """Of the chosen images, in the collection's order."""
        return [self.look.locations[i] for i in self.chosen.tolist()]

    @property
    def verdict(self) -> str:
        """What became of the flatness, and how far that can be trusted, in two sentences."""
        before, random, after = self.flatness.before, self.flatness.random, self.flatness.after
        change = "flatter than" if after > random else "no flatter than"
        return (
            f"The subset is {change} a random one of its size: {after:.1f} effective cells of {self.flatness.cells}, "
            f"random {random:.1f}, the whole collection {before:.1f}. {self.look.verdict}"
        )

    def card(self) -> dict[str, Any]:
        """How the subset came about, as plain values."""
        reliability = self.look.reliability
        return {
            "made_by": f"evensphere {__version__}",
            "encoder": self.look.made_by,
            "images": len(self.look.index),
            "near_duplicate_groups": int(self.look.groups.max()) + 1,
            "chosen": len(self.chosen),
            "levels": self.levels,
            "seed": self.seed,
            "shared_neighbours_percent": None if reliability is None else round(reliability, 2),
            "effective_cells": {
                "of": self.flatness.cells,
                "collection": round(self.flatness.before, 2),
                "random_subset": round(self.flatness.random, 2),
                "subset": round(self.flatness.after, 2),
            },
            "verdict": self.verdict,
        }


def curate(
    target: str | Path,
    size: int,
    data: Sequence[str] = (),
    backbone: str | None = None,
    weights: str | Path | None = None,
    levels: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    trust: bool = False,
) -> Curated:
    """A subset of `size` images, drawn as evenly as can be from the places where images are.

    target: a run folder, whose encoder is used, or a collection of images. data, backbone, weights, trust: see
        recipes/frozen.py. levels: numbers of clusters, descending; None chooses.
    Raises InputError for a size that the readable images do not allow, or levels that do not descend.
    """
    return choose_evenly(look_at(frozen(target, data, backbone, weights, trust), progress), size, levels, seed)


def choose_evenly(look: Look, size: int, levels: Sequence[int] | None = None, seed: int = 0) -> Curated:
    """`curate` of images that were looked at already. What the encoder fails at is never chosen."""
    usable = look.finite.nonzero()[:, 0]
    if not 1 <= size <= len(usable):
        raise InputError(f"A subset of {size} images was asked for; give 1 to {len(usable)}, the images there are.")
    levels = default_levels(len(look.leaders)) if levels is None else list(levels)
    if not levels or levels[-1] < 1 or levels != sorted(set(levels), reverse=True):
        raise InputError(f"levels = {levels} was given; give numbers of clusters that descend, such as 600 70 8.")
    paths = tree(look.features[look.leaders], levels, seed)
    of_group = torch.empty(int(look.groups.max()) + 1, dtype=torch.int64)
    of_group[look.groups[look.leaders]] = torch.arange(len(look.leaders))
    leader = of_group[look.groups[usable]]
    paths = torch.cat([paths[:, leader], leader[None]])  # a burst is a branch of its own, below all clusters
    shares = even_shares(paths, size)
    weights = torch.zeros(len(look.index), dtype=torch.float64)
    weights[usable] = shares
    chosen = usable[draw_evenly(shares, paths, size, seed)]
    return Curated(chosen, weights, levels, flatness_of(look, chosen, seed), look, seed)


def flatness_of(look: Look, chosen: Int64[Tensor, " size"], seed: int) -> Flatness:
    """Before and after, by cells around about as many images as the root of their number (see `far_apart`).

    The clusters of k-means would not do: they are of about the same size wherever they are many, in a skewed collection
    as well.
    """
    usable, points = look.finite.nonzero()[:, 0], look.features[look.leaders]
    cells = max(1, min(_CELLS, round(len(points) ** 0.5)))
    numbers: list[list[float]] = []
    sizes: list[Tensor] = []
    for judge in range(_JUDGES):
        centres = points[far_apart(points, cells, seed_for(seed, "flatness", judge))]
        cell = nearest_centre(look.features, centres).number
        drawn = usable[permutation(seed, "flatness/random", judge, len(usable))[: len(chosen)]]
        counts = [torch.bincount(cell[some], minlength=cells) for some in (usable, drawn, chosen)]
        numbers.append([effective_number(count / count.sum()) for count in counts])
        sizes.append(torch.stack([counts[0], counts[2]]))
    before, random, after = (sum(same) / _JUDGES for same in zip(*numbers, strict=True))
    return Flatness(cells, before, random, after, sizes[0])


def far_apart(points: Float[Tensor, "n d"], count: int, seed: int) -> Int64[Tensor, " count"]:
    """Points each of which is as far as can be from those before it (Gonzalez 1985); the first is drawn.

    points: unit rows. count: at most n.
    """
    chosen = [int(permutation(seed, "far apart", 0, len(points))[0])]
    nearest = points @ points[chosen[0]]
    while len(chosen) < count:
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, points @ points[chosen[-1]])
    return torch.tensor(chosen)


def write_curated(curated: Curated, out: Path) -> list[Path]:
    """list.txt (a location in each line), weights.csv (of every image), card.json and flatness.png; returns these."""
    make_folder(out)
    files = [out / name for name in ("list.txt", "weights.csv", "card.json", "flatness.png")]
    atomic_write(files[0], "".join(f"{location}\n" for location in curated.locations))
    weights = (f"{weight:.9f}" for weight in curated.weights.tolist())
    write_table(files[1], ("path", "weight"), zip(curated.look.locations, weights, strict=True))
    atomic_write(files[2], json.dumps(curated.card(), indent=2) + "\n")
    draw_flatness(curated, files[3])
    return files


def draw_flatness(curated: Curated, file: Path) -> None:
    """Shares of the cells before and after, each sorted, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    names = (f"all {len(curated.look.index):,} images", f"the chosen {len(curated.chosen):,}")
    for sizes, name, colour in zip(curated.flatness.sizes, names, ("#888888", "#2a6fbb"), strict=True):
        shares = 100 * sizes.sort(descending=True).values / sizes.sum()
        axes.step(range(1, len(shares) + 1), shares, where="mid", linewidth=2, color=colour, label=name)
    axes.axhline(100 / curated.flatness.sizes.shape[1], color="#222222", linewidth=1, linestyle=":", label="all equal")
    axes.set_xlabel("cells that the selection knew nothing of, largest first")
    axes.set_ylabel("% of the images")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    atomic_write(file, png.getvalue())
