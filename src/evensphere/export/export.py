"""From a run to files for the programs of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evensphere.disk import check_writable, make_folder, remove
from evensphere.errors import unknown_name
from evensphere.export.checks import BadExport, Exported
from evensphere.export.graphs import to_onnx, to_torch_export
from evensphere.export.hugging_face import to_hugging_face
from evensphere.export.state_dicts import state_files, to_detectron2, to_mmdet, to_safetensors, to_timm, to_torchvision
from evensphere.export.subject import Subject, subject_of
from evensphere.export.targets import TARGETS
from evensphere.recipes.trust import trusting
from evensphere.rundir import Which

_EXPORTERS: dict[str, Callable[[Subject, Path], Exported]] = {
    "timm": to_timm,
    "torchvision": to_torchvision,
    "safetensors": to_safetensors,
    "onnx": to_onnx,
    "torch-export": to_torch_export,
    "huggingface": to_hugging_face,
    "detectron2": to_detectron2,
    "mmdet": to_mmdet,
}
assert set(_EXPORTERS) == set(TARGETS)


def export_encoder(run: str | Path, to: str, out: str | Path, encoder: Which = "last", trust: bool = False) -> Exported:
    """Write a finished run's encoder for another program, read it again with that and compare the outputs.

    to: one of TARGETS (export/targets.py). out: a file, whose suffix says the format, or a folder for "huggingface".
    encoder: "last", or the one that was "best" on validation images while training.
    trust: whether code of the user's own, which the run's recipe names, may run.

    Images are normalised pixels [N, C, S, S] everywhere; mean, std and size are in the metadata.
    Raises InputError where the run is not finished, the target cannot hold such an encoder or is not installed, or what
    was written gives other outputs than the encoder (more than 1e-5 apart, 1e-4 for ONNX); that is removed then.
    """
    if to not in TARGETS:
        raise unknown_name("target", to, TARGETS)
    out = Path(out)
    make_folder(out.parent)
    if to != "huggingface":
        check_writable(out)
    with trusting(trust):
        subject = subject_of(run, encoder)
    try:
        return _EXPORTERS[to](subject, out)
    except BadExport as error:
        for file in _written(to, out):
            remove(file)
        raise BadExport(f"{out} is of no use and was removed: {error}; please report this.") from error


def _written(to: str, out: Path) -> list[Path]:
    """What an exporter has written, and nothing that may be somebody else's."""
    if to == "huggingface":
        names = ("model.safetensors", "config.json", "preprocessor_config.json", "evensphere.json")
        return [out / name for name in names]
    return state_files(out) if to in ("timm", "torchvision", "safetensors") else [out]
