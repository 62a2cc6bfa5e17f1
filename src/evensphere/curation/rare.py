"""The images from the sparsest places of an embedding: what to look at and to label first.

    look      every image once: features, near-duplicates, what the pixels show (curation/look.py)
    junk      what shows nothing or is like nothing is set apart, or it would fill the list
    rank      one image of each group of near-duplicates, by its local density (metrics/density.py), sparsest first
    spread    an image is passed over while a close neighbour of it is on the list

How much of what it finds is truly rare depends on the embedding; docs/results.md has what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from evensphere.curation.hierarchy import k_means
from evensphere.curation.look import NEIGHBOURS, RELIABLE, Look, look_at
from evensphere.curation.written import are_files, export_picture, write_table
from evensphere.data.contact_sheet import draw_tiles
from evensphere.data.source import Source
from evensphere.disk import atomic_write, make_folder, remove
from evensphere.errors import InputError
from evensphere.metrics.cluster import nearest_centre
from evensphere.metrics.density import Neighbours, density_of, nearest_neighbours
from evensphere.recipes.frozen import frozen
from evensphere.rundir import RunDir
from evensphere.spreadsheet import Cell

_TOO_CLOSE = 3  # nearest neighbours of a chosen image that are not chosen beside it
_IMAGES_OF_A_REGION, _REGIONS = 50, 100  # on average, and at most
_SHOWN = 400  # pictures on a sheet


class Find(NamedTuple):
    """One image of a list.

    number: of the image among those looked at. score: its mean cosine distance to its nearest neighbours, over the
    median image's; nan where there is none. region, region_size: a cluster of the collection, and its images.
    why: in words.
    """

    number: int
    score: float
    region: int
    region_size: int
    why: str


@dataclass(frozen=True)
class Rare:
    """rare: rarest first. junk: what was set apart, in the order of the images. look: of the collection."""

    rare: list[Find]
    junk: list[Find]
    look: Look


def find_rare(
    run: str | Path,
    budget: int = 200,
    data: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    trust: bool = False,
) -> Rare:
    """The `budget` rarest images of a run's collection by its encoder (all, where there are fewer), and suspected junk.

    run: a finished run folder. data: other images instead of the run's own. seed: of the regions.
    trust: whether code of the user's own, which the run's recipe names, may run.
    Raises InputError where the run is not finished, the images do not fit, or budget < 1.
    """
    if budget < 1:
        raise InputError(f"A budget of {budget} images was given; give 1 or more.")
    images = frozen(RunDir.existing(run).path, data, trust=trust)
    return choose_rare(look_at(images, progress), budget, seed)


def choose_rare(look: Look, budget: int, seed: int = 0) -> Rare:
    """`find_rare` among images that were looked at already."""
    leaders = look.leaders
    neighbours = nearest_neighbours(look.features[leaders], NEIGHBOURS) if len(leaders) > 1 else None
    score = torch.full((len(look.index),), torch.nan)
    if neighbours is not None:
        distance = torch.exp(-density_of(neighbours))
        score[leaders] = distance / distance.median()
    regions = _Regions(look, seed)
    reasons = _junk(look)
    clean = torch.tensor([int(i) not in reasons for i in leaders.tolist()], dtype=torch.bool)
    order = spread(neighbours, clean, budget) if neighbours is not None else clean.nonzero()[:, 0]
    chosen = leaders[order].tolist()
    return Rare(
        rare=[regions.find(i, float(score[i]), _why(look, float(score[i]), i)) for i in chosen],
        junk=[regions.find(i, float(score[i]), reason) for i, reason in sorted(reasons.items())],
        look=look,
    )


def spread(neighbours: Neighbours, allowed: Bool[Tensor, " n"], budget: int) -> Int64[Tensor, " b"]:
    """The sparsest of the allowed points, in that order, passing over what is a close neighbour of one chosen before,
    either way round. What was passed over comes last, should the budget not be used up. At most `budget`."""
    order = density_of(neighbours).argsort(stable=True)
    close = neighbours.index[:, :_TOO_CLOSE].tolist()
    chosen: list[int] = []
    passed_over: list[int] = []
    taken, beside = set[int](), set[int]()  # the chosen, and what they have for neighbours
    for i in order[allowed[order]].tolist():
        if len(chosen) == budget:
            break
        if i in beside or not taken.isdisjoint(close[i]):
            passed_over.append(i)
            continue
        chosen.append(i)
        taken.add(i)
        beside.update(close[i])
    return torch.tensor((chosen + passed_over)[:budget], dtype=torch.int64)


# --- in words ---------------------------------------------------------------------------------------------------------


class _Regions:
    """Clusters of the collection, numbered from 1, the largest first: they say of what kind of place an image is."""

    def __init__(self, look: Look, seed: int) -> None:
        count = max(1, min(_REGIONS, len(look.leaders) // _IMAGES_OF_A_REGION))
        centres = k_means(look.features[look.leaders], count, seed).centres
        assigned = nearest_centre(look.features, centres).number
        sizes = torch.bincount(assigned, minlength=len(centres))
        rank = torch.empty_like(sizes)
        rank[sizes.argsort(descending=True, stable=True)] = torch.arange(1, len(sizes) + 1)
        self.of, self.sizes = rank[assigned], sizes[assigned]

    def find(self, i: int, score: float, why: str) -> Find:
        return Find(i, score, int(self.of[i]), int(self.sizes[i]), why)


def _why(look: Look, score: float, i: int) -> str:
    copies = int((look.groups == look.groups[i]).sum()) - 1
    also = f"; stands for {copies} near-duplicate{'s' * (copies != 1)} too" if copies else ""
    if score != score:
        return f"there is nothing to compare it with{also}"
    return f"{score:.1f} times as far from its nearest as the median image{also}"


# --- junk -------------------------------------------------------------------------------------------------------------

_BLANK = 2.0  # levels of contrast: noise and rounding
_FAINT, _FLAT_BITS, _LONG = 6.0, 1.0, 4.0  # levels of contrast, bits of entropy, long side over short
_CUT = 0.25  # of the rows are of one colour
_UNUSUAL = 4.0  # times less contrast (or entropy), or longer, than the median image: else the collection is like that
_FENCE = 3.0  # interquartile ranges below the lower quartile (Tukey's far out)


def _junk(look: Look) -> dict[int, str]:
    """Images that are suspected to be broken or to show nothing, and why; the first reason found is given."""
    reasons: dict[int, str] = {}

    def suspect(which: Bool[np.ndarray, " n"] | Bool[Tensor, " n"], why: Callable[[int], str]) -> None:
        for i in np.flatnonzero(np.asarray(which)).tolist():
            reasons.setdefault(i, why(i))

    contrast, entropy, aspect = look.contrast, look.entropy, look.aspect
    faint = (contrast < _FAINT) & (_UNUSUAL * contrast < np.median(contrast))
    flat = (entropy < _FLAT_BITS) & (_UNUSUAL * entropy < np.median(entropy))
    long = (aspect > _LONG) & (aspect > _UNUSUAL * np.median(aspect))
    cut = (look.cut > _CUT) & (look.cut > _UNUSUAL * np.median(look.cut))
    suspect(~look.finite, lambda i: "the encoder fails at it")
    suspect(contrast < _BLANK, lambda i: "blank")
    suspect(faint, lambda i: f"hardly any contrast ({contrast[i]:.1f} of 255 levels)")
    suspect(flat, lambda i: f"hardly any detail ({entropy[i]:.1f} bits)")
    suspect(long, lambda i: f"{aspect[i]:.0f} times as long as wide")
    suspect(cut, lambda i: f"the lower {100 * look.cut[i]:.0f} % are of one colour")
    suspect(_alone(look), lambda i: "like nothing else, and never twice in the same company")
    return reasons


def _alone(look: Look) -> Bool[Tensor, " n"]:
    """Leaders far from everything in both views, with other neighbours in each: rare things have company that stays.

    Where neighbours mean little in general, nothing follows from having other ones, and none is suspected.
    """
    alone = torch.zeros(len(look.index), dtype=torch.bool)
    if look.reliability is None or look.reliability < RELIABLE:
        return alone
    assert look.consistency is not None
    far = torch.stack([_far_out(view[look.leaders]) for view in look.views]).all(0)
    alone[look.leaders] = far & (look.consistency <= 0)
    return alone


def _far_out(points: Float[Tensor, "l d"]) -> Bool[Tensor, " l"]:
    density = density_of(nearest_neighbours(points, NEIGHBOURS))
    low, high = density.quantile(0.25), density.quantile(0.75)
    return density < low - _FENCE * (high - low)


# --- written down -----------------------------------------------------------------------------------------------------


def write_rare(found: Rare, out: Path) -> list[Path]:
    """rare.csv and junk.csv, each with a sheet of its pictures, and reliability.txt; returns the files.

    Images that are no files of their own have a picture each in OUT/pictures, named in a column of its own.
    """
    make_folder(out)
    atomic_write(out / "reliability.txt", found.look.verdict + "\n")
    pictures = found.look.pictures([find.number for find in (*found.rare, *found.junk)])
    headings = {
        "rare": f"The {len(found.rare):,} rarest of {len(found.look.index):,} images ({found.look.short_verdict})",
        "junk": f"{len(found.junk):,} images set apart, suspected to be broken or to show nothing",
    }
    written = [out / "reliability.txt"]
    for name, finds in (("rare", found.rare), ("junk", found.junk)):
        table, sheet = out / f"{name}.csv", out / f"{name}.png"
        exported = None if are_files(found.look.source) else _export(found, finds, pictures, out / "pictures", name)
        _write_list(found, finds, exported, table)
        remove(sheet)  # of an earlier time, with other pictures
        if finds:
            _draw(found, finds, headings[name], pictures, sheet)
        written += [table, sheet] if finds else [table]
    return written


def _write_list(found: Rare, finds: Sequence[Find], exported: list[str] | None, file: Path) -> None:
    header = ["rank", "path", "score", "region", "region_images", "why"]
    rows: list[list[Cell]] = [
        [rank, found.look.locations[one.number], f"{one.score:.4f}", one.region, one.region_size, one.why]
        for rank, one in enumerate(finds, start=1)
    ]
    if exported is not None:
        header.insert(2, "picture")
        for row, name in zip(rows, exported, strict=True):
            row.insert(2, name)
    write_table(file, header, rows)


def _export(found: Rare, finds: Sequence[Find], pictures: Source, folder: Path, name: str) -> list[str]:
    """A picture of each image; their names relative to the table."""
    make_folder(folder)
    files = [folder / f"{name}-{rank:04}.png" for rank in range(1, len(finds) + 1)]
    for find, file in zip(finds, files, strict=True):
        export_picture(pictures, int(found.look.index[find.number]), file)
    return [f"{folder.name}/{file.name}" for file in files]


def _draw(found: Rare, finds: Sequence[Find], heading: str, pictures: Source, file: Path) -> None:
    """A sheet: above each picture its rank and its score, or why it is junk."""
    of_all = "" if len(finds) <= _SHOWN else f"; the first {_SHOWN:,}"
    rare = finds is found.rare
    tiles = [
        (f"{rank}. {one.score:.1f} x" if rare else f"{rank}. {one.why}", int(found.look.index[one.number]))
        for rank, one in enumerate(finds[:_SHOWN], start=1)
    ]
    draw_tiles(pictures, heading + of_all, tiles, file)
