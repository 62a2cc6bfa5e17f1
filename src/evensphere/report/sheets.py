"""The maps of the page: what its script draws of each, small enough for a page, and sheets of pictures beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evensphere.report.arms import Arm
from evensphere.report.maps import ImageMap
from evensphere.report.record import Json, RunRecord
from evensphere.report.wording import PERCENT, count

# on a page, over all its maps: together with plotly's 5 MB they stay below 12 MB
MOST_POINTS, MOST_PICTURES, MOST_NAME_BYTES = 20_000, 2_000, 1_500_000
MOST_MAPS = 6
ON_A_SHEET, OF_A_REGION, REGIONS_SHOWN = 24, 8, 4
_ON_SHEETS = 2 * ON_A_SHEET + 2 * REGIONS_SHOWN * OF_A_REGION  # pictures of one map, at most

_TENTHS = ("sparsest tenth", "2nd tenth", "3rd tenth", *(f"{i}th tenth" for i in range(4, 10)), "densest tenth")


class Tile(NamedTuple):
    """A picture on a sheet, as base64, and the image's name."""

    picture: str
    name: str


class Sheet(NamedTuple):
    heading: str
    tiles: list[Tile]


@dataclass(frozen=True)
class ShownMap:
    """A map on the page. title: whose it is. drawn: what the script draws. reading: what there is to know about it."""

    title: str
    drawn: Json
    reading: str
    sheets: list[Sheet]
    region_sheets: list[Sheet]


def shown_maps(arms: Sequence[Arm]) -> list[ShownMap]:
    """One map an arm, of its first seed that has one; they share the room of the page."""
    found = []
    for arm in arms:
        run = next((run for run in arm.runs if run.image_map is not None), None)
        if run is not None and run.image_map is not None:
            found.append((f"{arm.label}, seed {run.recipe['seed']}", run.image_map, _doubt(run)))
    found = found[:MOST_MAPS]
    return [_shown(title, image_map, doubt, len(found)) for title, image_map, doubt in found]


def _doubt(run: RunRecord) -> str:
    """What a diagnosis says against taking the neighbours on the map at their word; empty for nothing."""
    unsure = [one for one in run.findings if one.name == "neighbourhoods" and one.level in ("alarm", "warning")]
    return f" {unsure[0].sentence}" if unsure else ""


def _shown(title: str, image_map: ImageMap, doubt: str, share: int) -> ShownMap:
    places = _fitting(image_map.names, MOST_POINTS // share, MOST_NAME_BYTES // share)
    room = (MOST_PICTURES - _ON_SHEETS * (share - 1)) // share
    pictured = set(_most_wanted([i for i in places if i in image_map.pictures], room))
    pictures = {here: image_map.pictures[i] for here, i in enumerate(places) if i in pictured}
    names = [image_map.names[i] for i in places]
    start = _common_folder(names)
    drawn: Json = {
        "title": title,
        "start": start,
        "names": [name[len(start) :] for name in names],
        "x": [image_map.x[i] for i in places],
        "y": [image_map.y[i] for i in places],
        "colourings": _colourings(image_map, places),
        "pictures": pictures,
    }
    reading = _reading(image_map, len(places), len(pictures)) + doubt
    return ShownMap(title, drawn, reading, _ends(image_map), _regions(image_map))


def _reading(image_map: ImageMap, shown: int, pictures: int) -> str:
    some = "" if shown == image_map.images else f" {shown:,} of them are shown, the sparsest among them."
    has = "all have a picture" if pictures == shown else f"{pictures:,} have a picture, the sparsest first"
    regions = "" if image_map.region else " No regions are known here: tenths of density take their place."
    return f"{count(image_map.images, 'image')}.{some} Of these {has}.{regions}"


# --- what fits --------------------------------------------------------------------------------------------------------


def _most_wanted(places: Sequence[int], most: int) -> list[int]:
    """At most `most` of some places, sparsest first: the first half of the room is theirs, the rest evenly spread."""
    first = min(len(places), -(-most // 2))
    rest, room = places[first:], most - first
    return [*places[:first], *(rest[i * len(rest) // room] for i in range(room))] if len(places) > most else [*places]


def _fitting(names: Sequence[str], most: int, most_bytes: int) -> list[int]:
    """The places of at most `most` images whose names fit into so many bytes."""
    places = _most_wanted(range(len(names)), most)
    while (size := sum(_bytes_of(names[i]) for i in places)) > most_bytes:
        places = _most_wanted(places, int(len(places) * min(0.9, most_bytes / size)))
    return places


def _bytes_of(name: str) -> int:
    """Of a name in the page, where what is not ASCII and what HTML would read takes six letters."""
    return sum(1 if letter.isascii() and letter not in "<>&'\"\\" else 12 for letter in name) + 4


def _common_folder(names: Sequence[str]) -> str:
    """What all names begin with, up to a slash."""
    first, last = min(names), max(names)  # what these share, all that lie between them share
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rfind("/", 0, same) + 1]


# --- colours ----------------------------------------------------------------------------------------------------------


def _colourings(image_map: ImageMap, places: Sequence[int]) -> list[Json]:
    """What dots can be coloured by. kind: "scale" for kinds in an order, "kinds" for others. of: kind of each dot."""
    found = [_colouring("density", "scale", _TENTHS, image_map.tenth, places)]
    if image_map.region:
        names = [f"region {i + 1} ({count(size, 'image')})" for i, size in enumerate(image_map.region_images)]
        found.append(_colouring("region", "kinds", names, image_map.region, places))
    if image_map.label:
        groups = [name for name in ("many", "medium", "few") if name in image_map.groups]
        of = {label: groups.index(group) for label, group in enumerate(image_map.groups) if group in groups}
        if all(label in of for label in image_map.label):
            found.append(_colouring("group", "groups", groups, [of[label] for label in image_map.label], places))
        found.append(_colouring("class", "kinds", image_map.classes, image_map.label, places))
    return found


def _colouring(by: str, kind: str, names: Iterable[str], of: Sequence[int], places: Sequence[int]) -> Json:
    return {"by": by, "kind": kind, "names": list(names), "of": [of[i] for i in places]}


# --- sheets -----------------------------------------------------------------------------------------------------------


def _ends(image_map: ImageMap) -> list[Sheet]:
    """The sparsest and the densest images that have a picture."""
    pictured = sorted(image_map.pictures)
    sparsest, densest = pictured[:ON_A_SHEET], pictured[ON_A_SHEET:][::-1][:ON_A_SHEET]
    sheets = [Sheet("The sparsest places", _tiles(image_map, sparsest)),
              Sheet("The densest places", _tiles(image_map, densest))]  # fmt: skip
    return [sheet for sheet in sheets if sheet.tiles]


def _regions(image_map: ImageMap) -> list[Sheet]:
    """Images of the regions that hold fewest and most."""
    members: dict[int, list[int]] = {}
    for i in sorted(image_map.pictures) if image_map.region else []:
        members.setdefault(image_map.region[i], []).append(i)
    total = sum(image_map.region_images) or 1
    by_size = sorted(members, key=lambda region: image_map.region_images[region])
    chosen = list(dict.fromkeys([*by_size[:REGIONS_SHOWN], *by_size[-REGIONS_SHOWN:]]))
    sheets = []
    for region in chosen:
        size, inside = image_map.region_images[region], members[region]
        spread = [inside[i * len(inside) // OF_A_REGION] for i in range(OF_A_REGION)]
        heading = f"Region {region + 1}: {count(size, 'image')}, {100 * size / total:.2g}{PERCENT}"
        sheets.append(Sheet(heading, _tiles(image_map, list(dict.fromkeys(spread)))))
    return sheets


def _tiles(image_map: ImageMap, places: Iterable[int]) -> list[Tile]:
    return [Tile(image_map.pictures[i], image_map.names[i]) for i in places]
