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
    "hub": "evensphere.data.hub:hub",
    "shards": "evensphere.data.shards:shards",
    "array": "evensphere.data.arrays:array",
}


class SourceInfo(NamedTuple):
    """What one line of `evensphere data` says about a source; every field is text for people."""

    summary: str
    size: str
    classes: str
    licence: str
    how_to_get: str


SOURCE_INFO = {
    "digits": SourceInfo(
        summary="scikit-learn's handwritten digits, made long-tailed",
        size="1,797 grey images of 8x8",
        classes="10",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        how_to_get="comes with scikit-learn; nothing to download",
    ),
    "cifar10": SourceInfo(
        summary="CIFAR-10, made long-tailed (CIFAR-10-LT)",
        size="60,000 RGB images of 32x32",
        classes="10",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-10-batches-bin or cifar-10-batches-py, or download=true",
    ),
    "cifar100": SourceInfo(
        summary="CIFAR-100, made long-tailed (CIFAR-100-LT)",
        size="60,000 RGB images of 32x32",
        classes="100",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-100-binary or cifar-100-python, or download=true",
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
    "hub": SourceInfo(
        summary="a Hugging Face data set: a folder made by `datasets.save_to_disk`, or one on the hub",
        size="any number of images in a column of the type Image",
        classes="the names in a column of the type ClassLabel, if there is one",
        licence="see the data set's page on the hub",
        how_to_get="pip install 'evensphere[hub]'; --data FOLDER or hf://OWNER/NAME, with --set data.download=true",
    ),
    "shards": SourceInfo(
        summary="WebDataset shards: tar files that are read from beginning to end, as a stream",
        size="any number of images, which are never numbered; what needs numbers refuses them",
        classes="none; evaluation takes other images",
        licence="yours",
        how_to_get="--data FOLDER, 'train-{000..099}.tar', or an http(s) address with --set data.samples=N",
    ),
    "array": SourceInfo(
        summary="images in a numpy file: .npy, or .npz with labels and, perhaps, several splits",
        size="any number of images of one size, 8 bits to a channel",
        classes="the different labels, if there are any",
        licence="yours",
        how_to_get="--data FILE.npy or FILE.npz",
    ),
}
