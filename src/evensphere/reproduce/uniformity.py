"""The table `uniformity`: how the classes lie on the sphere, and what groups found without labels know of them.

The paper (section 5) measures an encoder by the centroids of its classes: inter-class uniformity, the mean distance
between them, and neighbourhood uniformity, the mean distance to the ten nearest. Both are of the features of test
images (metric `geometry`). Beside them: the mutual information with the classes of k-means clusters of the same
features (metric `clusters`), and of GH's surrogate labels of the training images (RUN/surrogates.json, last
checkpoint), with what labels dealt out at random would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evensphere.metrics.groups import GROUPS, group_accuracy
from evensphere.reproduce.arms import ARMS
from evensphere.reproduce.cells import Cell, get_table
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture
from evensphere.reproduce.pictures import differences_picture
from evensphere.reproduce.results import Score, read_looks, tail_counts
from evensphere.reproduce.rows import PAIRED, Column, arm_rows, difference_rows, seeds_of
from evensphere.rundir import RunDir

_MEASURES = {
    "inter_class_uniformity": "Inter-class uniformity of the classes' centroids",
    "neighborhood_uniformity": "Neighbourhood uniformity: to the ten nearest",
}
_COLUMNS = (*GROUPS, "average")
_KNOWN: dict[str, Column] = {
    "k-means, NMI": ("clusters_nmi", "average"),
    "k-means, adjusted Rand": ("clusters_ari", "average"),
    "surrogate labels, NMI": ("surrogates_nmi", "average"),
    "the same by chance": ("surrogates_nmi_chance", "average"),
}


def uniformity_scores(cells: Sequence[Cell], folder: Path) -> list[Score]:
    """Every number of the cells that are measured; distances are in [0, 2], mutual informations in [0, 1].

    Classes are grouped by how common they are in the seed's long-tailed set, as `results.collect` does.
    """
    scores = []
    for cell in cells:
        run = RunDir(folder / cell.folder)
        recipe, results, device = run.read_recipe(), run.read_results("test"), run.read_environment()["device"]
        counts = tail_counts(cell, folder, "test")
        for metric, column, value in (*_distances(results, counts), *_information(results, run)):
            scores.append(Score(recipe["name"], cell.arm, recipe["seed"], metric, column, value, None, device))
    return scores


def _distances(results: dict[str, Any], counts: list[int]) -> Iterator[tuple[str, str, float | None]]:
    if "geometry" in results and counts:
        for measure in _MEASURES:
            per_class = results["geometry"][f"{measure}_per_class"]
            found = group_accuracy(per_class, counts, results["group_rule"])
            yield from ((measure, column, found[column]) for column in _COLUMNS)


def _information(results: dict[str, Any], run: RunDir) -> Iterator[tuple[str, str, float | None]]:
    if "clusters" in results:
        yield from ((f"clusters_{name}", "average", results["clusters"][name]) for name in ("nmi", "ari"))
    if run.surrogates_file.exists():
        last = read_looks(run)[-1]
        yield from ((f"surrogates_{name}", "average", last[name]) for name in ("nmi", "nmi_chance"))


def uniformity_page(command: str, scores: Sequence[Score], pictures: Path) -> list[Block]:
    """pictures: where PNGs go, as PICTURES-NAME.png."""
    table = get_table("uniformity")
    titles = {arm: ARMS[arm].title for arm in table.arms}
    blocks: list[Block] = [
        Heading(1, command),
        Paragraph(
            f"{seeds_of(scores)} Of the frozen encoder's features of test images, scaled to unit length: distances "
            "between the mean directions of classes, in [0, 2], larger is more uniform; 100 classes that lie as far "
            "from each other as can be have 1.421 in both measures. NMI: normalised mutual information with the "
            "classes, in [0, 1], of as many k-means clusters as there are classes, and of GH's surrogate labels of the "
            "training images at the end (the control is seen through GH's anchors); the adjusted Rand index is 0 by "
            f"chance. {PAIRED}"
        ),
        *_picture(scores, pictures),
    ]
    for measure, title in _MEASURES.items():
        columns: dict[str, Column] = {column: (measure, column) for column in _COLUMNS}
        blocks += [
            Heading(2, title),
            arm_rows(scores, titles, columns, 3),
            difference_rows(scores, table.contrasts, titles, columns, 3),
        ]
    return [
        *blocks,
        Heading(2, "What clusters and surrogate labels know of the classes"),
        arm_rows(scores, titles, _KNOWN, 3),
        difference_rows(scores, table.contrasts, titles, _KNOWN, 3),
    ]


def _picture(scores: Sequence[Score], pictures: Path) -> list[Picture]:
    arms = {score.arm for score in scores}
    contrasts = [pair for pair in get_table("uniformity").contrasts if arms.issuperset(pair)]
    if not contrasts:
        return []
    file = pictures.with_name(f"{pictures.name}-neighbourhood.png")
    axis = "difference in neighbourhood uniformity"
    drawn = differences_picture(file, scores, "neighborhood_uniformity", contrasts, axis)
    caption = (
        "Differences in neighbourhood uniformity between arms, paired by seed, by how common the classes were in "
        "training; right of 0 the first arm's classes lie further from their neighbours."
    )
    return [drawn._replace(caption=caption)]
