"""The encoder as a graph that needs none of our code: ONNX, and torch's own export. The batch may have any size."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from evensphere.disk import atomic_write
from evensphere.errors import InputError
from evensphere.export.checks import Exported, check_outputs
from evensphere.export.state_dicts import check_suffix
from evensphere.export.subject import Subject

ONNX_TOLERANCE = 1e-4  # other kernels than torch's add up in another order

_PIXELS, _FEATURES = "pixels", "features"


def to_torch_export(subject: Subject, out: Path) -> Exported:
    """A program of torch.export, with the metadata beside it in the file."""
    check_suffix(out, (".pt2",))
    buffer = io.BytesIO()
    with _quietly():
        torch.export.save(_program(subject), buffer, extra_files={"evensphere.json": json.dumps(subject.metadata)})
    atomic_write(out, buffer.getbuffer())
    program = torch.export.load(out).module()
    apart = check_outputs(subject, program, "torch.export", batches=True)
    code = ["import torch", f"model = torch.export.load({str(out)!r}).module()", "features = model(pixels)"]
    return Exported([out], f"torch {torch.__version__}", apart, subject.images, "\n".join(code))


def to_onnx(subject: Subject, out: Path) -> Exported:
    """An ONNX model of one input, `pixels`, and one output, `features`, with the metadata among its properties."""
    check_suffix(out, (".onnx",))
    onnxruntime = _onnxruntime()
    with _quietly():
        program = torch.onnx.export(
            subject.encoder,
            (subject.pixels,),
            dynamo=True,
            input_names=[_PIXELS],
            output_names=[_FEATURES],
            dynamic_shapes=({0: Dim("batch")},),
            verbose=False,
        )
    assert program is not None, "the exporter of torch.export gives a program"
    model = program.model_proto
    for key, value in subject.metadata.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    atomic_write(out, model.SerializeToString())
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])

    def run(pixels: Tensor) -> Tensor:
        return torch.from_numpy(session.run([_FEATURES], {_PIXELS: pixels.numpy()})[0])

    apart = check_outputs(subject, run, "onnxruntime", ONNX_TOLERANCE, batches=True)
    code = [
        "import onnxruntime",
        f"session = onnxruntime.InferenceSession({str(out)!r})",
        f"features = session.run(['{_FEATURES}'], {{'{_PIXELS}': pixels.numpy()}})[0]",
    ]
    return Exported([out], f"onnxruntime {version('onnxruntime')}", apart, subject.images, "\n".join(code))


def _program(subject: Subject) -> ExportedProgram:
    return torch.export.export(subject.encoder, (subject.pixels,), dynamic_shapes=({0: Dim("batch")},))


def _onnxruntime() -> Any:
    try:
        import onnx  # noqa: F401  # which torch's exporter needs, as onnxscript
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"ONNX needs packages that are not here ({error.name}); pip install 'evensphere[onnx]'."
        ) from error
    return onnxruntime


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporters say of themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
