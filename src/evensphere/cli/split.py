"""`evensphere split SOURCE`: long-tailed training sets, held-out parts and few-shot probes, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from evensphere.cli.console import plain_console, say

NAME = "split"


def run(
    source: Annotated[str, typer.Argument(help="Labelled images: a path, or a data set's name.")],
    out: Annotated[Path, typer.Option(help="New folder for the lists and their card.")],
    data: Annotated[str | None, typer.Option(help="Where a data set given by name lies.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the source: groups=folder, label_column=species ...")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Make the training set long-tailed: exp, step, pareto, or a published one (cifar100-lt-split1 ... 5)."
        ),
    ] = None,
    imbalance: Annotated[float, typer.Option(help="Of the profile: largest class over smallest.")] = 100,
    largest: Annotated[int | None, typer.Option(help="Images of the largest class [default: as many as fit].")] = None,
    counts: Annotated[
        Path | None, typer.Option(help="Instead of a profile: a file with 'CLASS COUNT' in each line.")
    ] = None,
    shuffle_classes: Annotated[
        bool, typer.Option("--shuffle-classes", help="Deal the profile's counts out to the classes in random order.")
    ] = False,
    validation: Annotated[
        float, typer.Option(help="Held out of what --test leaves: images of each class, or a share below 1.")
    ] = 0,
    test: Annotated[float, typer.Option(help="The same, for testing; 0 keeps the source's own test images.")] = 0,
    few_shot: Annotated[
        list[int] | None, typer.Option(help="A probe with so many images of each class; repeat for several.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all choices.")] = 0,
) -> None:
    """Divide labelled images for long-tailed research: lists, a card with counts and checksums, a picture."""
    from evensphere.data.card import whole_of, write_split
    from evensphere.data.partition import Division
    from evensphere.recipes.part import build
    from evensphere.recipes.recipe import get_recipe, with_data

    recipe = with_data(get_recipe("folder"), source)  # whose data may be anything
    part = with_data(recipe, *([] if data is None else [data])).set([f"data.{one}" for one in setting or ()]).data
    splits = build("data", part)
    division = Division(
        validation=validation,
        test=test,
        profile=profile,
        imbalance=imbalance,
        largest=largest,
        counts=None if counts is None else _read_counts(counts, whole_of(splits).class_names or ()),
        shuffle_classes=shuffle_classes,
        few_shot=tuple(few_shot or ()),
        seed=seed,
    )
    card = write_split(part.name, part.options, splits, division, out)
    _print(card, out)


def _read_counts(file: Path, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Images of each class; a class that the file does not name keeps none."""
    from evensphere.errors import InputError, unknown_name

    counts = dict.fromkeys(class_names, 0)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The counts in {file} cannot be read ({error}); give a text file.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, count = line.strip().rpartition(" ")
        if not count.isdecimal():
            raise InputError(f"Line {number} of {file} is {line!r}; write 'CLASS COUNT', such as 'cat 20'.")
        if name not in counts:
            raise unknown_name("class", name, class_names)
        counts[name] = int(count)
    return tuple(counts.values())


def _print(card: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    from evensphere.cli.next_command import command

    table = Table(title=f"{out}: {len(card['classes'])} classes", title_justify="left")
    for column in ("part", "images", "largest class", "smallest class", "list"):
        table.add_column(column, justify="left" if column in ("part", "list") else "right")
    for name, entry in card["lists"].items():
        counts = entry["counts"]
        table.add_row(name, f"{entry['images']:,}", f"{max(counts):,}", f"{min(counts):,}", entry["file"])
    for name, images in card["official"].items():
        table.add_row(name, f"{images:,}", "", "", "the source's own")
    plain_console(width=110).print(table)
    say(f"Written: {out / 'card.json'}, counts.png and the lists")
    say(f"Next: {command('train', 'folder', '--data', out)}")
