"""RUN/map.json, read and checked: where a finished encoder puts the images (see recipes/mapping.py).

The file comes with the run folder, so it may come from anybody: names are text wherever they end up, and a picture is
kept only if it is a small WebP.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from evensphere.rundir import RunDir
from evensphere.untrusted import RESULTS, read_json_object

TENTHS = 10

_MOST_IMAGES, _MOST_CLASSES, _MOST_PICTURE = 1_000_000, 100_000, 6_000  # the last in letters of base64
_SCALE = 9_999
_LONGEST_NAME = 10_000  # letters: twice what a path may have


@dataclass(frozen=True)
class ImageMap:
    """n images of a run, sparsest first.

    images: of the run, of which these are some. names: where each comes from. x, y: 0 to 9,999. tenth: of the density
    among all images, 0 the sparsest. region: of GH's anchors; empty for none, like region_images, the images in each.
    label: class of each; classes, groups: its name, and whether it is one of many, medium or few; empty without labels.
    pictures: base64 of a WebP, by place in `names`.
    """

    images: int
    names: list[str]
    x: list[int]
    y: list[int]
    tenth: list[int]
    region: list[int] = field(default_factory=list)
    region_images: list[int] = field(default_factory=list)
    label: list[int] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pictures: dict[int, str] = field(default_factory=dict)


def read_map(run: RunDir, problems: list[str]) -> ImageMap | None:
    """The map of a run; None where there is none, or none that can be used, which is then said in `problems`."""
    if not run.map_file.is_file():
        return None
    content = read_json_object(run.map_file, RESULTS)
    try:
        return _checked(content or {})
    except (KeyError, ValueError):
        problems.append(f"{run.map_file.name} is damaged and was not used.")
        return None


def _checked(content: dict[str, Any]) -> ImageMap:
    """Raises KeyError or ValueError for all that is no map."""
    names = _texts(content["names"], _MOST_IMAGES)
    n = len(names)
    if not n:
        raise ValueError("no images")
    found = ImageMap(
        images=_numbers([content["images"]], 1, 10**12)[0],
        names=names,
        x=_numbers(content["x"], n, _SCALE),
        y=_numbers(content["y"], n, _SCALE),
        tenth=_numbers(content["tenth"], n, TENTHS - 1),
        **_regions(content, n),
        **_labels(content, n),
        pictures=_pictures(content["thumbnails"], n),
    )
    if found.images < n:
        raise ValueError("more images than there are")
    return found


def _regions(content: dict[str, Any], n: int) -> dict[str, Any]:
    if "region" not in content:
        return {}
    sizes = content["region_images"]
    sizes = _numbers(sizes, len(sizes) if isinstance(sizes, list) else 0, 10**12)
    return {"region": _numbers(content["region"], n, len(sizes) - 1), "region_images": sizes}


def _labels(content: dict[str, Any], n: int) -> dict[str, Any]:
    if "label" not in content:
        return {}
    classes, groups = (_texts(content[key], _MOST_CLASSES) for key in ("classes", "groups"))
    if len(classes) != len(groups):
        raise ValueError("a group for each class")
    return {"label": _numbers(content["label"], n, len(classes) - 1), "classes": classes, "groups": groups}


def _texts(values: object, most: int) -> list[str]:
    if not isinstance(values, list) or len(values) > most or not all(isinstance(one, str) for one in values):
        raise ValueError("no list of names")
    if any(len(one) > _LONGEST_NAME for one in values):
        raise ValueError("a name that is longer than any path")
    return values


def _numbers(values: object, n: int, most: int) -> list[int]:
    """n whole numbers from 0 to `most`."""
    if not isinstance(values, list) or len(values) != n or not all(type(one) is int for one in values):
        raise ValueError("no list of whole numbers")
    if values and not 0 <= min(values) <= max(values) <= most:
        raise ValueError("a number out of its range")
    return values


def _pictures(content: object, n: int) -> dict[int, str]:
    if not isinstance(content, dict):
        raise ValueError("no pictures by place")
    found = {}
    for place, picture in content.items():
        if not place.isdecimal() or not place.isascii() or len(place) > 7 or int(place) >= n:
            raise ValueError("a picture of no image")
        if not isinstance(picture, str) or not _is_webp(picture):
            raise ValueError("no small WebP")
        found[int(place)] = picture
    return found


def _is_webp(text: str) -> bool:
    if len(text) > _MOST_PICTURE:
        return False
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"
