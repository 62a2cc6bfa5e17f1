"""What a run's encoder makes of images, for the programs of others: a vector for each, where it is from, how densely
others lie around it and in which of GH's regions it is.

    F.parquet     path, density, region, features (a list of floats); the encoder in the file's metadata
    F.npy         features [n, d], float32; F.csv beside it has path, density and region, row by row
    F.skipped.csv the images that could not be read, and why; no file where all could be
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evensphere.disk import atomic_write, check_writable, make_folder, remove
from evensphere.engine import embed as engine
from evensphere.engine.checkpoint import load_encoder, read_checkpoint
from evensphere.errors import InputError
from evensphere.metrics.density import knn_density
from evensphere.recipes.frozen import Frozen, data_of, frozen
from evensphere.recipes.network import nearest_anchors, projector_of, trained_method
from evensphere.recipes.part import Part
from evensphere.recipes.recipe import Recipe
from evensphere.recipes.trust import trusting
from evensphere.rundir import RunDir, Which
from evensphere.spreadsheet import to_csv

_SUFFIXES = (".parquet", ".npy")
_COLUMNS = ("path", "density", "region")  # of the table beside an .npy file
_REASONS = ("path", "reason")  # of that of images that could not be read


@dataclass(frozen=True)
class Embeddings:
    """Of the n images that could be read. density: see `knn_density`; nan where it was not wanted, or for one image.
    region: the anchor that is nearest to the image's embedding; None where there is none, for which `no_region` says
    why. skipped: location and reason of images that could not be read. files: that were written.
    """

    locations: list[str]
    features: Float[Tensor, "n d"]
    density: Float[Tensor, " n"]
    region: Int64[Tensor, " n"] | None
    no_region: str
    skipped: list[tuple[str, str]]
    files: list[Path]


def embed(
    run: str | Path,
    out: str | Path,
    data: Sequence[str] = (),
    encoder: Which = "last",
    density: bool = True,
    progress: Callable[[int, int], None] | None = None,
    trust: bool = False,
) -> Embeddings:
    """Embed images by a finished run's encoder, batch after batch, and write what comes out.

    out: a .parquet or .npy file. data: images of any kind (see docs/data.md) instead of the run's own.
    encoder: "last", or the one that was "best" on validation images. density: whether it is wanted; work for it grows
        with the square of the number of images.
    progress: called with images done and images in all. trust: as of `evaluate`.
    Raises InputError where the run is not finished, or no image can be read, or `out` cannot be written.
    """
    out = Path(out)
    if out.suffix not in _SUFFIXES:
        raise InputError(f"--out {out} was given; its name must end with {' or '.join(_SUFFIXES)}.")
    make_folder(out.parent)
    check_writable(out)
    folder = RunDir.existing(run)
    with trusting(trust):
        recipe = Recipe.from_json(folder.read_recipe())
        _check_that_nothing_is_lost(out, data_of(folder.path, data))
        found = frozen(folder.path, data)
        regions, no_region = _regions(folder, recipe, encoder)
    if encoder == "best":
        load_encoder(folder, found.encoder, "best")
    skipped: list[tuple[str, str]] = []

    def miss(location: str, reason: str) -> None:
        skipped.append((_as_text(location), reason))

    seen = engine.embed(found.source, found.encoder, found.views, progress=progress, miss=miss)
    # out of inference mode, so that others may compute with them as they like
    features = seen.features.clone()
    made = Embeddings(
        locations=[_as_text(location) for location in seen.locations],
        features=features,
        density=_density(features, density),
        region=None if regions is None else regions(features),
        no_region=no_region,
        skipped=sorted(skipped),
        files=[],
    )
    made.files.extend(_write(made, found, folder, encoder, out))
    return made


def _check_that_nothing_is_lost(out: Path, images: Part) -> None:
    """Refuse to write over the images, or a list of them, or over a table that is somebody else's."""
    given = images.options.get("path", [])
    paths = {Path(path).expanduser().resolve() for path in ([given] if isinstance(given, str | Path) else given)}
    tables = _tables(out)
    for file in (out, *tables):
        if file.resolve() in paths:
            raise InputError(f"--out {out} would write over {file}, which the images come from; choose another name.")
    for table, columns in tables.items():
        check_writable(table)
        if table.exists() and not table.read_bytes().startswith(to_csv(columns, []).rstrip()):
            raise InputError(
                f"{table} would be written over, and is no table of `evensphere embed`; choose another --out."
            )


def _tables(out: Path) -> dict[Path, tuple[str, ...]]:
    """What may be written beside `out`, with their columns."""
    tables: dict[Path, tuple[str, ...]] = {out.with_suffix(".skipped.csv"): _REASONS}
    if out.suffix == ".npy":
        tables[out.with_suffix(".csv")] = _COLUMNS
    return tables


def _as_text(location: str) -> str:
    """Names in archives need not be valid text."""
    return location.encode("utf-8", "backslashreplace").decode()


def _density(features: Float[Tensor, "n d"], wanted: bool) -> Float[Tensor, " n"]:
    if not wanted or len(features) < 2:
        return torch.full((len(features),), torch.nan)
    return knn_density(features)


# --- regions ----------------------------------------------------------------------------------------------------------

Regions = Callable[[Float[Tensor, "n d"]], Int64[Tensor, " n"]]


def _regions(run: RunDir, recipe: Recipe, which: Which) -> tuple[Regions | None, str]:
    """From features to GH's regions; or None, and why there are none."""
    if recipe.harmonizer.name == "none":
        return None, f"{run.path} was trained without GH"
    if which == "best":
        return None, "only the last encoder's projector is known"
    if recipe.stages is not None:
        return None, "a run in stages has no projector of its own"
    try:
        projector = projector_of(trained_method(run)).eval()
        anchors = read_checkpoint(run, run.checkpoint_steps()[-1])["model"]["harmonizer.anchors"]
    except (InputError, KeyError) as error:
        return None, str(error).rstrip(".")
    return lambda features: nearest_anchors(features, projector, anchors), ""


# --- files ------------------------------------------------------------------------------------------------------------


def _write(made: Embeddings, found: Frozen, run: RunDir, which: Which, out: Path) -> list[Path]:
    about = {
        "run": run.path.name,
        "encoder": which,
        "images": Path(found.source.name).name,
        "input_size": found.views.size,
    }
    files = [out]
    if out.suffix == ".parquet":
        atomic_write(out, _parquet(made, about))
    else:
        buffer = io.BytesIO()
        np.save(buffer, made.features.numpy())
        atomic_write(out, buffer.getbuffer())
        files.append(out.with_suffix(".csv"))
        atomic_write(files[-1], to_csv(_COLUMNS, zip(*_cells(made).values(), strict=True)))
    beside = out.with_suffix(".skipped.csv")
    remove(beside)  # of an earlier time
    if made.skipped:
        atomic_write(beside, to_csv(_REASONS, made.skipped))
        files.append(beside)
    return files


def _cells(made: Embeddings) -> dict[str, list[Any]]:
    nothing = [None] * len(made.locations)
    known = [None if x != x else x for x in made.density.tolist()]
    return {
        "path": made.locations,
        "density": known,
        "region": nothing if made.region is None else made.region.tolist(),
    }


def _parquet(made: Embeddings, about: dict[str, Any]) -> memoryview:
    columns = _cells(made)
    count, width = made.features.shape
    values = pa.array(made.features.numpy().reshape(-1))
    table = pa.table(
        {
            "path": pa.array(columns["path"], pa.string()),
            "density": pa.array(columns["density"], pa.float32()),
            "region": pa.array(columns["region"], pa.int32()),
            "features": pa.FixedSizeListArray.from_arrays(values, width) if count else pa.array([]),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"evensphere": json.dumps(about)}), buffer)
    return buffer.getbuffer()
