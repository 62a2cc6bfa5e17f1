"""Image collections by name: where each is defined, and what a reader of `evensphere data` needs to know about it.

Only names live here, so that listing them loads no torch. A source is a function returning
`evensphere.data.source.Splits`; its keywords are the options a recipe may set.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCES = {
    "digits": "evensphere.data.digits:digits",
    "cifar10": "evensphere.data.cifar:cifar10",
    "cifar100": "evensphere.data.cifar:cifar100",
    "folder": "evensphere.data.folder:folder",
    "split": "evensphere.data.card:split",
}


class SourceInfo(NamedTuple):
    """What `evensphere data` says about a source; every field is text for people."""

    summary: str
    size: str
    classes: str
    licence: str
    how_to_get: str
    imbalance: str = "its own"


SOURCE_INFO = {
    "digits": SourceInfo(
        summary="scikit-learn's handwritten digits, made long-tailed",
        size="1,797 grey images of 8x8",
        classes="10",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        how_to_get="comes with scikit-learn; nothing to download",
        imbalance="20, or your choice: --set data.imbalance=N",
    ),
    "cifar10": SourceInfo(
        summary="CIFAR-10, made long-tailed (CIFAR-10-LT)",
        size="60,000 RGB images of 32x32",
        classes="10",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-10-batches-bin or cifar-10-batches-py, or download=true",
        imbalance="100, or your choice: --set data.imbalance=N",
    ),
    "cifar100": SourceInfo(
        summary="CIFAR-100, made long-tailed (CIFAR-100-LT)",
        size="60,000 RGB images of 32x32",
        classes="100",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-100-binary or cifar-100-python, or download=true",
        imbalance="100, or your choice: --set data.imbalance=N",
    ),
    "folder": SourceInfo(
        summary="your own image files: a flat folder, class folders, or train/val/test folders",
        size="any number of JPEG, PNG, BMP, WebP, GIF, TIFF, PPM or PGM files of any size",
        classes="the folders' names, if there are any; labels are needed for evaluation only",
        licence="yours",
        how_to_get="--data PATH",
    ),
    "split": SourceInfo(
        summary="a division of any labelled collection that `evensphere split` made",
        size="that of its lists",
        classes="those of the collection",
        licence="that of the collection",
        how_to_get="evensphere split SOURCE --out FOLDER, then --data FOLDER",
    ),
}
