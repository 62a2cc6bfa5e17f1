"""What metrics predicted for each test image, kept in the run: RUN/predictions.parquet.

One row an image: where it comes from, its class, and a column of predicted classes for every metric that classifies.
Two runs can so be compared image by image, without their encoders.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Int64
from torch import Tensor

from evensphere.disk import atomic_write
from evensphere.errors import InputError
from evensphere.rundir import RunDir, Split

_IMAGE, _CLASS = "image", "class"


class Predictions(NamedTuple):
    """images: their locations. labels: their classes. predicted: by metric, the class each was taken for."""

    images: list[str]
    labels: Int64[Tensor, " n"]
    predicted: dict[str, Int64[Tensor, " n"]]

    def same_images(self, other: Predictions) -> bool:
        """Whether both are of the same images, in one order, with the same classes."""
        return self.images == other.images and torch.equal(self.labels, other.labels)


def write_predictions(run: RunDir, split: Split, predictions: Predictions) -> None:
    """Write them, beside those of other metrics if these are of the same images."""
    earlier = read_predictions(run, split)
    if earlier is not None and earlier.same_images(predictions):
        predictions = predictions._replace(predicted=earlier.predicted | predictions.predicted)
    columns = {_IMAGE: predictions.images, _CLASS: predictions.labels.tolist()}
    columns |= {name: predicted.tolist() for name, predicted in predictions.predicted.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    atomic_write(run.predictions_file(split), buffer.getvalue())


def read_predictions(run: RunDir, split: Split) -> Predictions | None:
    """Those of a run, None where there are none. Raises InputError for a damaged file."""
    file = run.predictions_file(split)
    if not file.is_file():
        return None
    try:
        table = pq.read_table(pa.BufferReader(file.read_bytes()))
        columns = {name: table[name].to_pylist() for name in table.column_names}
        images, labels = columns.pop(_IMAGE), torch.tensor(columns.pop(_CLASS), dtype=torch.int64)
        return Predictions(images, labels, {name: torch.tensor(column) for name, column in columns.items()})
    except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); delete it and evaluate the run again.") from error
