"""Long-tailed data sets published as lists of images: ImageNet-LT, Places-LT, iNaturalist 2018, ImageNet-100-LT.

The images have to be got from their owners; the lists say which of them belong to what. They are found by the names
under which they were published and checked by the counts that were published, so that a number made with them means
what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from evensphere.data.lists import ListFile, read_list, splits_of_lists
from evensphere.data.source import Splits
from evensphere.errors import InputError

_PROBES_FROM = "github.com/MediaBrain-SJTU/Geometric-Harmonization"


class _Lists(NamedTuple):
    """A published set. files, images: by part, the names of its list and how many lines it has.

    probe: a list of balanced training images that linear probes are fitted on; the training list stands in for it.
    """

    name: str
    classes: int
    files: dict[str, tuple[str, ...]]
    images: dict[str, int]
    lists_from: str


_IMAGENET_LT = _Lists(
    name="ImageNet-LT",
    classes=1000,
    files={
        "train": ("ImageNet_LT_train.txt",),
        "probe": ("ImageNet_split1_test_100shot.txt",),
        "validation": ("ImageNet_LT_val.txt",),
        "test": ("ImageNet_LT_test.txt",),
    },
    images={"train": 115_846, "probe": 100_000, "validation": 20_000, "test": 50_000},
    lists_from="github.com/facebookresearch/classifier-balancing, data/ImageNet_LT",
)
_PLACES_LT = _Lists(
    name="Places-LT",
    classes=365,
    files={
        "train": ("Places_LT_train.txt",),
        "probe": ("Places_split1_test_100shot.txt",),
        "validation": ("Places_LT_val.txt",),
        "test": ("Places_LT_test.txt", "Places_val.txt"),
    },
    images={"train": 62_500, "probe": 36_500, "validation": 7_300, "test": 36_500},
    lists_from="github.com/facebookresearch/classifier-balancing, data/Places_LT",
)
_INATURALIST_2018 = _Lists(
    name="iNaturalist 2018",
    classes=8142,
    files={"train": ("iNaturalist18_train.txt",), "test": ("iNaturalist18_val.txt",)},
    images={"train": 437_513, "test": 24_426},
    lists_from="github.com/facebookresearch/classifier-balancing, data/iNaturalist18",
)
_IMAGENET_100_LT = _Lists(
    name="ImageNet-100-LT",
    classes=100,
    files={
        "train": ("ImageNet_100_LT_train.txt",),
        "validation": ("ImageNet_100_val.txt",),
        "test": ("ImageNet_100_test.txt",),
    },
    images={"train": 12_205, "validation": 2_000, "test": 5_000},
    lists_from="github.com/VITA-Group/SDCLR, split/imagenet-100",
)


def imagenet_lt(
    path: str | Path,
    lists: str | Path | None = None,
    channels: int = 3,
    check: bool = True,
    balanced_probe: bool = False,
) -> Splits:
    """ImageNet-LT (Liu et al., CVPR 2019): 115,846 training images of 1,000 classes, 1,280 to 5 of each.

    path: the folder with ImageNet's train and val, class folders in both (train/n01440764/n01440764_762.JPEG).
    lists: the folder with ImageNet_LT_train.txt, ImageNet_LT_val.txt and ImageNet_LT_test.txt; None is `path`. Where
        ImageNet_split1_test_100shot.txt is there too, from the GH authors' repository, probes are fitted on its 100
        images of each class, as in their paper, and else on the long-tailed training images.
    check: refuse lists whose numbers of images or classes are not the published ones.
    channels: 3 (RGB) or 1 (grey).
    balanced_probe: refuse to do without the list of 100 images of each class, so that a probe is the paper's.

    Validation (20 of each class) is a part of ImageNet's train, test (50 of each) its val.
    Many: above 100 training images; few: below 20. Raises InputError for lists that are missing or not the published.
    """
    return _published(_IMAGENET_LT, path, lists, channels, check, balanced_probe)


def places_lt(
    path: str | Path,
    lists: str | Path | None = None,
    channels: int = 3,
    check: bool = True,
    balanced_probe: bool = False,
) -> Splits:
    """Places-LT (Liu et al., CVPR 2019): 62,500 training images of 365 scenes, 4,980 to 5 of each.

    path: the folder with the train and val of Places365-Standard in its "easy" layout (train/airfield/00004851.jpg,
        val/airfield/Places365_val_00003597.jpg).
    lists: the folder with Places_LT_train.txt, Places_LT_val.txt and Places_LT_test.txt; None is `path`. Where
        Places_split1_test_100shot.txt is there too, from the GH authors' repository, probes are fitted on its 100
        images of each class; 128 of them are validation images, so do not choose settings by such a probe.
    check, channels, balanced_probe, groups and errors: as for `imagenet_lt`.
    """
    return _published(_PLACES_LT, path, lists, channels, check, balanced_probe)


def inaturalist2018(path: str | Path, lists: str | Path | None = None, channels: int = 3, check: bool = True) -> Splits:
    """iNaturalist 2018 (Van Horn et al., CVPR 2018): 437,513 training images of 8,142 species, naturally long-tailed.

    path: the folder that holds train_val2018. lists: the folder with iNaturalist18_train.txt and iNaturalist18_val.txt
        (Kang et al., ICLR 2020); None is `path`.
    check, channels, groups and errors: as for `imagenet_lt`. The 24,426 images of val, 3 of each species, are the test
    set; there is no validation set.
    """
    return _published(_INATURALIST_2018, path, lists, channels, check)


def imagenet100_lt(path: str | Path, lists: str | Path | None = None, channels: int = 3, check: bool = True) -> Splits:
    """ImageNet-100-LT (Jiang et al., SDCLR, ICML 2021): 12,205 training images of 100 of ImageNet's classes, 1,280 to 6
    of each; 2,000 validation and 5,000 test images.

    path: as for `imagenet_lt`. lists: the folder with imageNet_100_LT_train.txt, ImageNet_100_val.txt and
        ImageNet_100_test.txt; None is `path`.
    check, channels, groups and errors: as for `imagenet_lt`.
    """
    return _published(_IMAGENET_100_LT, path, lists, channels, check)


def _published(
    which: _Lists,
    path: str | Path,
    lists: str | Path | None,
    channels: int,
    check: bool,
    balanced_probe: bool = False,
) -> Splits:
    root = Path(path).expanduser()
    found = _find(which, root if lists is None else Path(lists))
    if balanced_probe and "probe" not in found:
        raise InputError(
            f"{root if lists is None else lists} holds no {which.files['probe'][0]}, the 100 images of each class that "
            f"the paper's probe is fitted on; get it from {_PROBES_FROM}, or fit the probe on the long-tailed images "
            "with --set data.balanced_probe=false."
        )
    files = {part: read_list(file) for part, file in found.items()}
    if check:
        _check(which, files)
    return splits_of_lists(which.name, files, root, channels=channels, group_rule="shots")


def _find(which: _Lists, folder: Path) -> dict[str, Path]:
    """The list of each part; all but the probe's have to be there. Upper and lower case are the same: SDCLR's own names
    have both."""
    folder = folder.expanduser()
    try:
        present = {file.name.lower(): file for file in folder.iterdir()}
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); give the folder of the images.") from error
    found = {}
    for part, names in which.files.items():
        file = next((present[name.lower()] for name in names if name.lower() in present), None)
        if file is not None:
            found[part] = file
        elif part != "probe":
            raise InputError(
                f"{folder} holds no {names[0]}, one of the lists of {which.name}; get them from {which.lists_from}, "
                "and give their folder with --set data.lists=FOLDER."
            )
    return found


def _check(which: _Lists, files: Mapping[str, ListFile]) -> None:
    for part, file in files.items():
        classes = len(set(file.labels or []))
        if (len(file.paths), classes) != (which.images[part], which.classes):
            raise InputError(
                f"{file.name} lists {len(file.paths):,} images of {classes:,} classes, but the published {part} list "
                f"of {which.name} has {which.images[part]:,} of {which.classes:,}; get it from {which.lists_from}, or "
                "use another one with --set data.check=false."
            )
