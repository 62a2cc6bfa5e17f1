"""Sets that are published as lists, by their published names and counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.image_files import class_folders, locations

from evensphere.data import published
from evensphere.data.published import imagenet100_lt, imagenet_lt, inaturalist2018, places_lt
from evensphere.data.source import Splits
from evensphere.errors import InputError
from evensphere.metrics.groups import class_groups

# what the lists hold, written down a second time: file, images, classes
IMAGENET_LT = {"ImageNet_LT_train.txt": 115_846, "ImageNet_LT_val.txt": 20_000, "ImageNet_LT_test.txt": 50_000}
PLACES_LT = {"Places_LT_train.txt": 62_500, "Places_LT_val.txt": 7_300, "Places_LT_test.txt": 36_500}
INATURALIST = {"iNaturalist18_train.txt": 437_513, "iNaturalist18_val.txt": 24_426}
IMAGENET_100 = {"imageNet_100_LT_train.txt": 12_205, "ImageNet_100_val.txt": 2_000, "ImageNet_100_test.txt": 5_000}


def write_lists(folder: Path, images: dict[str, int], classes: int) -> Path:
    """Lists of so many made-up names; the image with number i is of class i modulo the classes."""
    for name, count in images.items():
        lines = [f"{name[:-4]}/c{i % classes:04}/{i}.jpg {i % classes}\n" for i in range(count)]
        (folder / name).write_text("".join(lines))
    return folder


def sizes(splits: Splits) -> list[int | None]:
    return [None if part is None else len(part) for part in splits[:4]]


@pytest.mark.slow
def test_imagenet_lt(tmp_path: Path) -> None:
    splits = imagenet_lt("images", lists=write_lists(tmp_path, IMAGENET_LT, 1000))
    assert sizes(splits) == [115_846, 115_846, 20_000, 50_000]
    assert splits.pretrain.class_names is not None
    assert len(splits.pretrain.class_names) == 1000
    assert splits.group_rule == "shots"
    write_lists(tmp_path, {"ImageNet_split1_test_100shot.txt": 100_000}, 1000)
    assert sizes(imagenet_lt("images", lists=tmp_path)) == [115_846, 100_000, 20_000, 50_000]


@pytest.mark.slow
def test_places_lt(tmp_path: Path) -> None:
    splits = places_lt(write_lists(tmp_path, PLACES_LT, 365))
    assert sizes(splits) == [62_500, 62_500, 7_300, 36_500]
    assert splits.group_rule == "shots"
    (tmp_path / "Places_LT_test.txt").rename(tmp_path / "Places_val.txt")
    assert sizes(places_lt(tmp_path)) == sizes(splits), "the GH authors' name for it"


@pytest.mark.slow
def test_inaturalist_2018(tmp_path: Path) -> None:
    splits = inaturalist2018(write_lists(tmp_path, INATURALIST, 8142))
    assert sizes(splits) == [437_513, 437_513, None, 24_426]


def test_imagenet_100_lt(tmp_path: Path) -> None:
    splits = imagenet100_lt(write_lists(tmp_path, IMAGENET_100, 100))
    assert sizes(splits) == [12_205, 12_205, 2_000, 5_000]


def test_real_images_of_a_shortened_list(tmp_path: Path) -> None:
    """Groups by shots: of 101, 20 and 3 training images."""
    class_folders(tmp_path / "train", n01=101, n02=20, n03=3)
    class_folders(tmp_path / "val", n01=1, n02=1, n03=1)
    counts = {"n01": 101, "n02": 20, "n03": 3}
    train = [f"train/{name}/{i}.png {c}\n" for c, name in enumerate(counts) for i in range(counts[name])]
    held = [f"val/{name}/0.png {c}\n" for c, name in enumerate(counts)]
    for name, lines in zip(IMAGENET_LT, (train, held, held), strict=True):
        (tmp_path / name).write_text("".join(lines))
    splits = imagenet_lt(tmp_path, check=False)
    assert splits.pretrain.class_names == ("n01", "n02", "n03")
    assert class_groups(splits.train_counts() or [], splits.group_rule) == ["many", "medium", "few"]
    assert splits.test is not None
    assert locations(splits.test) == ["val/n01/0.png", "val/n02/0.png", "val/n03/0.png"]
    assert int(splits.pretrain.read(locations(splits.pretrain).index("train/n02/17.png"))[0, 0, 0]) == 17


def test_other_lists_are_refused(tmp_path: Path) -> None:
    write_lists(tmp_path, IMAGENET_100 | {"ImageNet_100_val.txt": 1_999}, 100)
    sentence = (
        r"ImageNet_100_val\.txt lists 1,999 images of 100 classes, but .* validation list .* has 2,000 of 100; get it"
    )
    with pytest.raises(InputError, match=sentence):
        imagenet100_lt(tmp_path)
    assert sizes(imagenet100_lt(tmp_path, check=False)) == [12_205, 12_205, 1_999, 5_000]
    write_lists(tmp_path, IMAGENET_100, 99)
    with pytest.raises(InputError, match=r"of 99 classes"):
        imagenet100_lt(tmp_path)


def test_lists_that_are_not_there_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no Places_LT_train\.txt.*classifier-balancing.*data\.lists=FOLDER"):
        places_lt(tmp_path)
    with pytest.raises(InputError, match="cannot be listed"):
        places_lt(tmp_path / "nowhere")


def test_the_papers_probe_is_not_left_out_unnoticed(tmp_path: Path) -> None:
    write_lists(tmp_path, PLACES_LT, 365)
    with pytest.raises(InputError, match=r"holds no Places_split1_test_100shot\.txt.*data\.balanced_probe=false"):
        places_lt(tmp_path, check=False, balanced_probe=True)
    write_lists(tmp_path, {"Places_split1_test_100shot.txt": 730}, 365)
    splits = places_lt(tmp_path, check=False, balanced_probe=True)
    assert splits.probe is not None
    assert len(splits.probe) == 730


def test_every_set_says_where_its_lists_are() -> None:
    for which in (
        published._IMAGENET_LT,
        published._PLACES_LT,
        published._INATURALIST_2018,
        published._IMAGENET_100_LT,
    ):
        assert which.files.keys() == which.images.keys()
        assert which.lists_from.startswith("github.com/")
