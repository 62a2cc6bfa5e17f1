"""A picture of a collection: some of its images, and the largest groups of near-duplicates, with their names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from evensphere.data.inspection import Inspection, sample
from evensphere.data.source import Source, UnreadableImage
from evensphere.disk import atomic_write

COLUMNS = 8
BURST_ROWS = 4

_TILE, _GAP, _CAPTION, _HEADING, _LABEL, _MARGIN = 132, 12, 18, 34, 24, 24  # pixels
_PAPER, _INK, _FAINT, _EMPTY, _BRACKET = "#ffffff", "#222222", "#777777", "#eeeeee", "#2a6fbb"


class _Row(NamedTuple):
    """A line of images. heading: above it. groups: images side by side, those of a group under a label of its own."""

    heading: str
    groups: list[tuple[str, list[int]]]

    @property
    def labelled(self) -> bool:
        return any(label for label, _ in self.groups)

    @property
    def height(self) -> int:
        tiles = _TILE + _CAPTION if self.groups else 0
        return _HEADING * bool(self.heading) + _LABEL * self.labelled + tiles + _GAP


def draw_contact_sheet(inspection: Inspection, file: Path, number: int = 64) -> None:
    """Write `number` images of the collection (fewer if it has fewer), always the same ones, and the largest groups of
    near-duplicates, as a PNG."""
    source, chosen = inspection.source, sample(inspection, number)
    heading = f"{source.name}: {len(chosen):,} of {len(inspection.readable):,} images"
    rows = [_Row("", [("", chosen[start : start + COLUMNS])]) for start in range(0, len(chosen), COLUMNS)]
    rows[:1] = [_Row(heading, rows[0].groups if rows else [])]
    rows += _burst_rows(inspection.bursts)
    png = io.BytesIO()
    _draw(source, rows).save(png, format="png")
    atomic_write(file, png.getvalue())


def draw_tiles(source: Source, heading: str, tiles: Sequence[tuple[str, int]], file: Path) -> None:
    """Write chosen images, each with words of its own above it and its location below, as a PNG. tiles: (words, number
    in the source)."""
    groups = [(_begun(words, _font(13), _TILE), [i]) for words, i in tiles]
    rows = [_Row("", groups[start : start + COLUMNS]) for start in range(0, len(groups), COLUMNS)]
    png = io.BytesIO()
    _draw(source, [_Row(heading, []), *rows]).save(png, format="png")
    atomic_write(file, png.getvalue())


def _burst_rows(bursts: Sequence[Sequence[int]]) -> list[_Row]:
    """The largest groups, as many as fit."""
    rows: list[_Row] = []
    free = 0
    for burst in bursts:
        shown = list(burst[:COLUMNS])
        if len(shown) > free:
            if len(rows) == BURST_ROWS:
                break
            heading = "" if rows else f"Near-duplicates: the largest of {len(bursts):,} groups"
            rows.append(_Row(heading, []))
            free = COLUMNS
        rows[-1].groups.append((f"{len(burst):,} images", shown))
        free -= len(shown)
    return rows


def _draw(source: Source, rows: Sequence[_Row]) -> Image.Image:
    small, middle, large = _font(11), _font(13), _font(17)
    width = 2 * _MARGIN + COLUMNS * (_TILE + _GAP) - _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + sum(row.height for row in rows)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row in rows:
        x, y = _MARGIN, top
        if row.heading:
            draw.text((x, y), _fitted(row.heading, large, width - 2 * _MARGIN), _INK, large)
            y += _HEADING
        for label, images in row.groups:
            if label:
                draw.text((x, y), label, _BRACKET, middle)
                draw.line((x, y + 19, x + len(images) * (_TILE + _GAP) - _GAP - 1, y + 19), _BRACKET, 2)
            for i in images:
                tile = y + _LABEL * row.labelled
                _paste(sheet, draw, source, i, (x, tile))
                draw.text((x, tile + _TILE + 3), _fitted(source.location(i), small, _TILE), _FAINT, small)
                x += _TILE + _GAP
        top += row.height
    return sheet


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, source: Source, i: int, place: tuple[int, int]) -> None:
    """One image, as large as its tile and in the middle of it."""
    x, y = place
    draw.rectangle((x, y, x + _TILE - 1, y + _TILE - 1), _EMPTY)
    try:
        picture = as_picture(source.read(i))
    except UnreadableImage:  # since it was looked at
        return
    scale = _TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    how = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS  # the pixels of small images are theirs
    picture = picture.resize(size, how, reducing_gap=3.0)
    sheet.paste(picture, (x + (_TILE - size[0]) // 2, y + (_TILE - size[1]) // 2))


def as_picture(pixels: Shaped[Tensor, "c h w"]) -> Image.Image:
    """What can be shown of any number of channels: colour where there are three or four, else the first alone."""
    planes = (pixels * 255).round().byte() if pixels.is_floating_point() else pixels
    shown = planes[:3] if len(planes) in (3, 4) else planes[:1].expand(3, -1, -1)
    return Image.fromarray(np.ascontiguousarray(shown.permute(1, 2, 0).numpy()))


# --- words ------------------------------------------------------------------------------------------------------------


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which matplotlib brings along: it has the letters of most alphabets."""
    from matplotlib import get_data_path

    return ImageFont.truetype(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in one line, without its beginning where it is too long: names of files differ at their ends."""
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    if font.getlength(text) <= width:
        return text
    start = next(start for start in range(1, len(text) + 1) if font.getlength("…" + text[start:]) <= width)
    return "…" + text[start:]


def _begun(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text in one line, without its end where it is too long: sentences begin with what matters."""
    if font.getlength(text) <= width:
        return text
    return next(text[:end] + "…" for end in range(len(text), -1, -1) if font.getlength(text[:end] + "…") <= width)
