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
    "list": "evensphere.data.lists:listed",
    "table": "evensphere.data.table:table",
    "archive": "evensphere.data.archive:archive",
    "imagenet-lt": "evensphere.data.published:imagenet_lt",
    "places-lt": "evensphere.data.published:places_lt",
    "inaturalist2018": "evensphere.data.published:inaturalist2018",
    "imagenet100-lt": "evensphere.data.published:imagenet100_lt",
}


class SourceInfo(NamedTuple):
    """What one line of `evensphere data` says about a source; every field is text for people."""

    summary: str
    size: str
    classes: str
    licence: str
    how_to_get: str


def _lists(images: str, lists: str, repository: str = "github.com/facebookresearch/classifier-balancing") -> str:
    return (
        f"{images}; the lists {lists} from {repository}; "
        "then --set data.path=IMAGES, and data.lists=FOLDER where the lists are not beside the images"
    )


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
        summary="your own image files: a flat folder, class folders, or train/val/test folders; several, or a pattern",
        size="any number of JPEG, PNG, BMP, WebP, GIF, TIFF, PPM or PGM files of any size",
        classes="the folders' names, if there are any; labels are needed for evaluation only",
        licence="yours",
        how_to_get="--data PATH, repeated for several folders; or a pattern: --data 'photos/**/*.jpg'",
    ),
    "list": SourceInfo(
        summary="your own image files, named in a text file or in one like RUN/images.json",
        size="a path in each line, perhaps with the number of its class: train/n0144/x.JPEG 0",
        classes="numbers; their names from --set data.classes=FILE, or from the images' folders",
        licence="yours",
        how_to_get="--data FILE.txt; see --set data.root= validation= test= probe=",
    ),
    "table": SourceInfo(
        summary="your own image files, named in a csv, tsv or parquet table; or encoded in a parquet table",
        size="a row for each image",
        classes="those of a column (label), beside columns for groups and for train, val and test",
        licence="yours",
        how_to_get="--data FILE.csv; see --set data.image_column= label_column= group_column= split_column= root=",
    ),
    "archive": SourceInfo(
        summary="your own image files in a zip or tar file, which is not unpacked",
        size="any number of members with the names that image files have",
        classes="as for a folder",
        licence="yours",
        how_to_get="--data FILE.zip or FILE.tar",
    ),
    "imagenet-lt": SourceInfo(
        summary="ImageNet-LT (Liu et al., CVPR 2019), by its published lists; many > 100, few < 20 images",
        size="115,846 train, 20,000 validation, 50,000 test RGB images of any size",
        classes="1,000",
        licence="ImageNet's terms of access: non-commercial research and education",
        how_to_get=_lists(
            "ImageNet (image-net.org): train and val in class folders", "ImageNet_LT_train.txt, _val and _test"
        ),
    ),
    "places-lt": SourceInfo(
        summary="Places-LT (Liu et al., CVPR 2019), by its published lists; many > 100, few < 20 images",
        size="62,500 train, 7,300 validation, 36,500 test RGB images of 256x256",
        classes="365",
        licence="Places365's terms: non-commercial research and education",
        how_to_get=_lists(
            "Places365-Standard (places2.csail.mit.edu), easy layout", "Places_LT_train.txt, _val and _test"
        ),
    ),
    "inaturalist2018": SourceInfo(
        summary="iNaturalist 2018, by the lists of Kang et al. (ICLR 2020); many > 100, few < 20 images",
        size="437,513 train, 24,426 test RGB images of at most 800 pixels",
        classes="8,142 species, naturally long-tailed",
        licence="each photo its photographer's; for non-commercial research and education",
        how_to_get=_lists("train_val2018 (github.com/visipedia/inat_comp)", "iNaturalist18_train.txt and _val"),
    ),
    "imagenet100-lt": SourceInfo(
        summary="ImageNet-100-LT (SDCLR; Jiang et al., ICML 2021), by its published lists; many > 100, few < 20 images",
        size="12,205 train, 2,000 validation, 5,000 test RGB images of any size",
        classes="100 of ImageNet's",
        licence="ImageNet's terms of access: non-commercial research and education",
        how_to_get=_lists(
            "ImageNet (image-net.org): train and val in class folders",
            "imageNet_100_LT_train.txt, ImageNet_100_val.txt and ImageNet_100_test.txt",
            "github.com/VITA-Group/SDCLR",
        ),
    ),
}
