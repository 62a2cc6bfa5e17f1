"""`evensphere data`: the data sets there are; `evensphere data inspect PATH`: what is in a collection of images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evensphere.cli.console import plain_console, say
from evensphere.data import SOURCE_INFO, SourceInfo
from evensphere.data.kinds import OWN
from evensphere.untrusted import shown

if TYPE_CHECKING:
    from rich.console import Console

    from evensphere.data.inspection import Classes, Inspection, Sizes
    from evensphere.recipes.part import Part

NAME = "data"
SHOWN = 10  # broken files, and half as many classes at either end and groups of near-duplicates

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def list_sources(context: typer.Context) -> None:
    """List the data sets: size, classes, imbalance, licence, how to get them. Or look into one: data inspect PATH."""
    if context.invoked_subcommand is not None:
        return

    console = plain_console()
    named = {name: info for name, info in SOURCE_INFO.items() if name not in OWN}
    own = {name: info for name, info in SOURCE_INFO.items() if name in OWN}
    for title, infos in (("Data sets by name", named), ("Your own images", own)):
        console.rule(title, align="left", style="dim")
        for name, info in infos.items():
            console.print(_block(name, info))
    say("Look into any of them, or into your own images: evensphere data inspect PATH")


def _block(name: str, info: SourceInfo) -> Any:
    from rich.table import Table
    from rich.text import Text

    block = Table.grid(padding=(0, 2), expand=True)
    block.add_column(width=15)
    block.add_column(ratio=1)
    block.add_row(Text(name, style="bold", no_wrap=True), Text(info.summary, style="bold"))
    for field in ("size", "classes", "imbalance", "licence", "how_to_get"):
        block.add_row(Text("  " + field.replace("_", " ")), Text(getattr(info, field)))
    block.add_row("")
    return block


@app.command("inspect")
def inspect_collection(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Images: a folder, list, table, zip, tar, array ... or a data set's name; several paths are one "
            "collection.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write a contact sheet, inspection.json and skipped.csv to.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the source: channels=1, path=FOLDER ...")
    ] = None,
) -> None:
    """Look at every image once: counts, sizes, classes, broken files, near-duplicates, a contact sheet."""
    from evensphere.cli.reading import Reading
    from evensphere.data.inspection import inspect
    from evensphere.recipes.bursts import counts_once
    from evensphere.recipes.part import build
    from evensphere.recipes.recipe import get_recipe, with_data

    recipe = with_data(get_recipe("folder"), *paths).set([f"data.{one}" for one in setting or ()])
    kind, splits = recipe.data.name, build("data", recipe.data)
    with Reading("Reading all images once") as reading:
        inspection = inspect(splits, " + ".join(paths), os.cpu_count() or 1, reading)
    _print(inspection, kind, counts_once(recipe, splits.pretrain), plain_console())
    if out is not None:
        say(f"Written: {', '.join(map(str, _write(inspection, kind, paths, out)))}")
    say(_next(inspection, recipe.data, out))


def _write(inspection: Inspection, kind: str, paths: list[str], out: Path) -> list[Path]:
    from evensphere.data.contact_sheet import draw_contact_sheet
    from evensphere.disk import make_folder
    from evensphere.metrics.groups import class_groups
    from evensphere.rundir import RunDir

    make_folder(out)
    files = [out / "contact_sheet.png", out / "inspection.json", out / "skipped.csv"]
    draw_contact_sheet(inspection, files[0])
    content = inspection.to_json()
    if inspection.classes is not None:
        content["classes"]["groups"] = class_groups(inspection.classes.counts, inspection.classes.rule)
    folder = RunDir(out)  # which writes a file whole or not at all
    folder.write_json(files[1], {"kind": kind, "paths": list(paths), **content})
    folder.write_skipped(inspection.broken)
    return files


def _next(inspection: Inspection, data: Part, out: Path | None) -> str:
    from evensphere.cli.next_command import command, given_data

    readable, images = len(inspection.readable), len(inspection.source)
    if readable < 2 or 2 * readable < images:
        where = f"the list of them is {out / 'skipped.csv'}" if out else "--out FOLDER lists them all"
        return f"Next: repair the broken files or take them away, training refuses so many; {where}."
    training = command("train", "folder", *given_data(data))
    return f"Next: {training}" if data.name in OWN else f"Next: evensphere recipes   (or: {training})"


# --- in words ---------------------------------------------------------------------------------------------------------


def _print(inspection: Inspection, kind: str, once: bool, console: Console) -> None:
    """Everything on a page of 80 columns or more. once: whether training counts a group of near-duplicates once."""
    from rich.table import Table
    from rich.text import Text

    page = Table.grid(padding=(0, 2), expand=True)
    page.add_column(no_wrap=True)
    page.add_column(ratio=1, overflow="fold")
    width = min(console.width, 100) - 14
    for title, lines in _sections(inspection, once, width):
        page.add_row(Text(title), Text("\n".join(lines)))
    console.print(Text(f"{shown(inspection.source.name)}: {len(inspection.source):,} images ({kind})", style="bold"))
    console.print(page)


def _sections(inspection: Inspection, once: bool, width: int) -> list[tuple[str, list[str]]]:
    sections = []
    if len(inspection.parts) > 1:
        sections.append(("parts", [_listed(inspection.parts)]))
    if inspection.formats:
        modes = _listed(inspection.modes)
        sections.append(("files", [f"{_listed(inspection.formats)} ({modes})"]))
    if inspection.sizes is not None:
        sections.append(("pixels", _size_lines(inspection.sizes, inspection.source.channels)))
        sections.append(("short side", _short_sides(inspection.sizes, width)))
    if inspection.classes is not None:
        sections.append(("classes", _class_lines(inspection.classes, width)))
    else:
        sections.append(("classes", ["none: the images have no labels, which only evaluation needs"]))
    sections.append(("look alike", _burst_lines(inspection, once, width)))
    sections.append(("broken", _broken_lines(inspection)))
    return sections


def _size_lines(sizes: Sizes, channels: int) -> list[str]:
    from rich.filesize import decimal

    median, smallest, largest = (f"{width} x {height}" for width, height in sizes[:3])
    span = median if smallest == largest else f"{median} in the median, {smallest} to {largest}"
    return [f"{span}; read with {_count(channels, 'channel')}, {decimal(sizes.decoded_bytes)} in memory"]


def _short_sides(sizes: Sizes, width: int) -> list[str]:
    from evensphere.data.inspection import SHORT_SIDES

    starts = [1, *(limit + 1 for limit in SHORT_SIDES)]
    names = [f"{start}-{limit} px" for start, limit in zip(starts, SHORT_SIDES, strict=False)]
    names.append(f"over {SHORT_SIDES[-1]} px")
    present = [place for place, images in enumerate(sizes.short_sides) if images]
    places = range(present[0], present[-1] + 1)
    return _bars({names[place]: sizes.short_sides[place] for place in places}, width)


def _class_lines(classes: Classes, width: int) -> list[str]:
    from evensphere.metrics.groups import GROUPS, class_groups

    counts = dict(sorted(zip(classes.names, classes.counts, strict=True), key=lambda item: -item[1]))
    span = f"{max(classes.counts):,} to {min(classes.counts):,} images to pretrain on"
    lines = [f"{len(counts):,}, of {span}; imbalance {classes.imbalance:.3g}"]
    members = class_groups(classes.counts, classes.rule)
    for group in GROUPS:
        images = [count for count, name in zip(classes.counts, members, strict=True) if name == group]
        if images:
            lines.append(f"{group}: {_count(sum(images), 'image')} in {len(images):,} class{'es' * (len(images) != 1)}")
    half = SHOWN // 2
    names = list(counts)
    left_out = len(names) - 2 * half
    if left_out <= 1:
        return lines + _bars(counts, width)
    ends = _bars({name: counts[name] for name in names[:half] + names[-half:]}, width)
    return [*lines, *ends[:half], f"... {left_out:,} classes between ...", *ends[half:]]


def _burst_lines(inspection: Inspection, once: bool, width: int) -> list[str]:
    lines = []
    bursts, half = inspection.bursts, SHOWN // 2
    if inspection.own_groups is not None:
        lines.append(f"the collection has {_count(inspection.own_groups, 'group')} of its own, which count once each")
    if not bursts:
        return [*lines, "no near-duplicates"]
    images = sum(map(len, bursts))
    counted = "; training counts each once" if once and inspection.own_groups is None else ""
    lines.append(f"{images:,} images in {_count(len(bursts), 'group')} of near-duplicates{counted}")
    if inspection.crossing:
        lines.append(f"{_count(inspection.crossing, 'group')} with images of several parts: what is tested was seen")
    for burst in bursts[:half]:
        lines.append(f"{len(burst):,} images{', such as' if len(burst) > 3 else ''}")
        lines += [f"  {_shortened(shown(inspection.source.location(i)), width - 2)}" for i in burst[:3]]
    if len(bursts) > half:
        lines.append(f"... {_count(len(bursts) - half, 'more group')}")
    return lines


def _broken_lines(inspection: Inspection) -> list[str]:
    broken = inspection.broken
    if not broken:
        return ["none"]
    lines = [f"{len(broken):,} of {len(inspection.readable) + len(broken):,} images cannot be read"]
    lines += [shown(f"{path}: {reason}") for path, reason in broken[:SHOWN]]
    return lines + ([f"... {len(broken) - SHOWN:,} more"] if len(broken) > SHOWN else [])


def _bars(counts: dict[str, int], width: int) -> list[str]:
    """A line for each name: the name, a bar as long as its count says, the count."""
    from rich.cells import cell_len, set_cell_size

    most = max(counts.values())
    names = {name: _shortened(shown(name), 32) for name in counts}
    widest = max(map(cell_len, names.values()))  # some letters are as wide as two
    room = max(8, width - widest - len(f"{most:,}") - 2)
    return [f"{set_cell_size(names[name], widest)} {_bar(n, most, room)} {n:,}" for name, n in counts.items()]


def _bar(count: int, most: int, room: int) -> str:
    """To an eighth of a letter; something where there is something."""
    eighths = max(1, round(8 * room * count / most)) if count else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width // 2 - 1] + "…" + text[-(width - width // 2) :]
