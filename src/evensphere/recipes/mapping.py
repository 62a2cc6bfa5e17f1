"""RUN/map.json: where a finished encoder puts the images that it learnt from, for people to look at.

    embed       every image once, as evaluation sees it (engine/embed.py); no label is looked at
    density     tenths of the local density (metrics/density.py), among all images
    regions     of GH's anchors, as its population statistics have them; none for a run without GH
    choose      at most so many images and small pictures: the sparsest all, the densest and some of the smallest and
                largest regions, a random sample of the rest
    lay out     the chosen images in two dimensions (metrics/layout.py)

Labels, where there are any, are written beside each image, to colour it by. The file's readers are strangers to it
(report/maps.py checks everything).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from lightning_fabric import Fabric
from torch import Tensor, nn

from evensphere.data.source import Source, Splits, UnreadableImage
from evensphere.data.thumbnail import thumbnail
from evensphere.disk import atomic_write
from evensphere.engine.checkpoint import read_checkpoint
from evensphere.engine.embed import Embedded, embed, readable_again
from evensphere.engine.train import StepModule
from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer
from evensphere.gh.population import ExactPopulation
from evensphere.metrics.density import density_deciles, density_of, nearest_neighbours
from evensphere.metrics.groups import class_groups
from evensphere.metrics.layout import two_dimensions
from evensphere.ops.draw import permutation
from evensphere.recipes.building import build_training
from evensphere.recipes.bursts import groups_of
from evensphere.recipes.frozen import by_encoder_of
from evensphere.recipes.images import images_of, splits_of
from evensphere.recipes.network import nearest_anchors
from evensphere.recipes.recipe import Recipe, with_data
from evensphere.rundir import RunDir
from evensphere.values import check_whole

MOST_IMAGES, MOST_THUMBNAILS = 20_000, 2_000
SPARSEST, DENSEST = 1_000, 48  # images that always have a picture
REGIONS_SHOWN, OF_A_REGION = 5, 12  # smallest and largest regions, each with so many pictures

_SCALE = 9_999  # coordinates are whole numbers from 0 to this
_COMPARED = 20_000  # images that neighbours are looked for among


def draw_map(
    run: Path | str,
    images: int = MOST_IMAGES,
    data: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write RUN/map.json and return its path. The recipe's seed decides everything.

    images: on the map, at most. data: where the run's images lie now, if they have moved. progress(done, total): of
    embedding. Raises InputError where the run is not finished, its images are gone or its encoder has diverged.
    """
    check_whole("map", images, 1, MOST_IMAGES)
    folder = RunDir.existing(run)
    recipe = Recipe.from_json(folder.read_recipe())
    recipe = with_data(recipe, *data)
    splits = splits_of(recipe)
    splits = splits._replace(pretrain=images_of(folder, splits.pretrain))
    encoder = by_encoder_of(folder, splits.pretrain, None)
    device = Fabric(accelerator="auto", devices=1).device
    found = embed(splits.pretrain, encoder.encoder.to(device), encoder.views, progress=progress)
    regions = _regions(folder, recipe, splits, found)
    found, regions = _finite(found, regions, encoder.made_by)
    content = _content(found, regions, splits, images, recipe.seed)
    atomic_write(folder.map_file, json.dumps(content) + "\n")
    return folder.map_file


def _finite(found: Embedded, regions: _Regions | None, made_by: str) -> tuple[Embedded, _Regions | None]:
    """Those images that the encoder gives numbers for."""
    finite = found.features.isfinite().all(1)
    if int(finite.sum()) < 2:
        raise InputError(f"{made_by} gives finite features for {int(finite.sum())} image(s); there is nothing to map.")
    places = finite.nonzero()[:, 0]
    locations = [found.locations[i] for i in places.tolist()]
    kept = Embedded(found.index[places], locations, found.features[places].clone(), ())
    return kept, None if regions is None else regions._replace(of=regions.of[places])


def _content(found: Embedded, regions: _Regions | None, splits: Splits, images: int, seed: int) -> dict[str, Any]:
    density = _density(found.features, seed)
    order = density.argsort(stable=True)  # sparsest first, as everything in the file
    of = None if regions is None else regions.of[order]
    chosen = chosen_images(len(order), of, images, seed)
    rows = order[chosen]
    places = (two_dimensions(found.features[rows], seed) * _SCALE).round().long()
    pictured = pictured_images(len(rows), None if of is None else of[chosen], MOST_THUMBNAILS, seed)
    return {
        "format": 1,
        "layout": "neighbour embedding",
        "images": len(order),
        "names": [found.locations[i] for i in rows.tolist()],
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "tenth": density_deciles(density)[rows].tolist(),
        **({} if regions is None or of is None else _region_fields(regions, of[chosen])),
        **_label_fields(splits, found.index[rows]),
        "thumbnails": _thumbnails(splits.pretrain, found.index[rows[pictured]], pictured),
    }


def _density(features: Float[Tensor, "n d"], seed: int) -> Float[Tensor, " n"]:
    """Of each image; beyond so many by a random sample of its neighbours, for the sake of time."""
    some = None
    if len(features) > _COMPARED:
        some = permutation(seed, "map/neighbours", 0, len(features))[:_COMPARED].sort().values
    return density_of(nearest_neighbours(features, among=some))


# --- which images -----------------------------------------------------------------------------------------------------


def chosen_images(count: int, regions: Int64[Tensor, " n"] | None, most: int, seed: int) -> Int64[Tensor, " m"]:
    """At most `most` of `count` images that are in the order of their density, ascending; see `_first`."""
    return _first(count, regions, "map/images", seed)[:most].sort().values


def pictured_images(count: int, regions: Int64[Tensor, " n"] | None, most: int, seed: int) -> Int64[Tensor, " m"]:
    """The same of those that get a picture."""
    return _first(count, regions, "map/pictures", seed)[:most].sort().values


def _first(count: int, regions: Int64[Tensor, " n"] | None, purpose: str, seed: int) -> Int64[Tensor, " n"]:
    """All images by how much they are wanted: the sparsest, then the densest, then some of the smallest and of the
    largest regions, then the others in a random order."""
    wanted = [*range(min(SPARSEST, count)), *range(max(0, count - DENSEST), count)]
    if regions is not None:
        for region in ends(torch.bincount(regions).tolist()):
            members = (regions == region).nonzero()[:, 0]
            spread = torch.linspace(0, len(members) - 1, min(OF_A_REGION, len(members))).round().long()
            wanted += members[spread].tolist()
    wanted += permutation(seed, purpose, 0, count).tolist()
    return torch.tensor(list(dict.fromkeys(wanted)), dtype=torch.int64)


def ends(sizes: Sequence[int]) -> list[int]:
    """The smallest regions that hold any image, then the largest, those of one size by their number."""
    by_size = sorted((region for region, size in enumerate(sizes) if size), key=lambda region: sizes[region])
    return list(dict.fromkeys([*by_size[:REGIONS_SHOWN], *by_size[::-1][:REGIONS_SHOWN]]))


# --- regions ----------------------------------------------------------------------------------------------------------


class _Regions(NamedTuple):
    """of: the region of each image that was embedded. sizes: images in each of the K regions."""

    of: Int64[Tensor, " n"]
    sizes: Int64[Tensor, " k"]


def _regions(run: RunDir, recipe: Recipe, splits: Splits, found: Embedded) -> _Regions | None:
    """The regions of GH's anchors at the run's last checkpoint; None without GH, for a run in stages, whose encoder
    distils others, and where that checkpoint is gone."""
    steps = run.checkpoint_steps()
    if recipe.harmonizer.name == "none" or recipe.stages is not None or not steps:
        return None
    training = build_training(recipe, splits, splits.pretrain, run, groups=groups_of(run))
    harmonizer, module = training.harmonizer, StepModule(training.method, training.harmonizer)
    module.load_state_dict(read_checkpoint(run, steps[-1])["model"])
    assert isinstance(harmonizer, Harmonizer)
    of = _remembered(harmonizer, found.index)
    of = _by_projector(training.method, harmonizer, found.features) if of is None else of
    return None if of is None else _Regions(of, torch.bincount(of, minlength=len(harmonizer.anchors)))


def _remembered(harmonizer: Harmonizer, index: Int64[Tensor, " n"]) -> Int64[Tensor, " n"] | None:
    """Where pi counts each image; None where it does not know every image."""
    if not isinstance(harmonizer.population, ExactPopulation):
        return None
    places = harmonizer.population.places[index]
    return None if bool((places == 0).any()) else places - 1


def _by_projector(
    method: nn.Module, harmonizer: Harmonizer, features: Float[Tensor, "n d"]
) -> Int64[Tensor, " n"] | None:
    """The anchor nearest to each image's projection; None for methods whose projector lies elsewhere."""
    projector = getattr(method, "projector", None)
    if not isinstance(projector, nn.Module):
        return None
    return nearest_anchors(features.clone(), projector.eval(), harmonizer.anchors)


def _region_fields(regions: _Regions, of: Int64[Tensor, " m"]) -> dict[str, Any]:
    return {"region": of.tolist(), "region_images": regions.sizes.tolist()}


# --- what is only shown -----------------------------------------------------------------------------------------------


def _label_fields(splits: Splits, index: Int64[Tensor, " m"]) -> dict[str, Any]:
    """Classes, to colour by. Nothing above has seen them."""
    labels, counts = splits.pretrain.labels(), splits.train_counts()
    if labels is None or counts is None:
        return {}
    names = list(splits.pretrain.class_names or ())
    return {"label": labels[index].tolist(), "classes": names, "groups": class_groups(counts, splits.group_rule)}


def _thumbnails(source: Source, index: Int64[Tensor, " m"], places: Int64[Tensor, " m"]) -> dict[str, str]:
    """Place in the file -> WebP, as base64."""
    numbers = index.tolist()
    again = readable_again(source, numbers)

    def picture(i: int) -> str | None:
        try:
            return base64.b64encode(thumbnail(again.read(i))).decode()
        except UnreadableImage:  # since it was embedded
            return None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        pictures = zip(places.tolist(), pool.map(picture, numbers), strict=True)
        return {str(place): found for place, found in pictures if found is not None}
