"""The images of a run: which they are, in which order, and which could not be read."""

from __future__ import annotations

from rich.console import Console

from evensphere.data.encoded import as_text
from evensphere.data.lists import read_list
from evensphere.data.source import ArraySource, Source, Splits, take_listed
from evensphere.data.stream import Stream
from evensphere.errors import InputError
from evensphere.recipes.bursts import Groups
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe, without_auto
from evensphere.rundir import RunDir


def splits_of(recipe: Recipe) -> Splits:
    """The data set of a recipe. What a begun run found out about its images ("auto") is not asked again, lest a folder
    that has changed be read otherwise."""
    known = how_read(recipe)
    splits: Splits = build("data", _as_begun(without_auto(recipe.data)) if known else recipe.data, **known)
    return splits


def _as_begun(data: Part) -> Part:
    """The data of a begun run. Runs of earlier versions could name a revision on the hub and no leave to download; they
    read what this machine's cache held, whatever its revision, and still do."""
    options = data.options
    if data.name != "hub" or "download" in options or options.get("streaming"):
        return data
    return Part(data.name, **{name: value for name, value in options.items() if name != "revision"})


def how_read(recipe: Recipe) -> dict[str, int]:
    """What a begun run found out about how its images are read; nothing for a recipe that was not begun."""
    return {name: recipe.resolved[name] for name in ("channels", "bits") if name in recipe.resolved}


def check_stream(stream: Stream, recipe: Recipe, in_stages: bool, console: Console) -> None:
    """Refuse what needs the images' numbers, and say what is done in its place."""
    if in_stages:
        stream.refuse("a run in stages")
    if recipe.images is not None:
        stream.refuse("a run on some of the images")
    if recipe.harmonizer.name == "none":
        return
    if recipe.harmonizer.options.get("population") == "exact":
        stream.refuse("the exact population of the harmonizer")
    console.print("Population statistics are averaged over the batches (population=streaming): the data is a stream.")


def listed_images(source: Source, file: str | None) -> Source:
    """The images that a list names (see Recipe.images), all of them where there is none."""
    if file is None:
        return source
    return take_listed(source, [as_text(path) for path in read_list(file).paths])


def write_images(run: RunDir, source: Source, groups: Groups | None = None) -> None:
    """images.json: which file is image i, and which of them count once. Memories have a row for each, so a resumed run
    must number them alike; and it must weigh them alike."""
    content = {"images": [source.location(i) for i in range(len(source))]}
    run.write_json(run.images_file, content if groups is None else content | {"groups": groups.tolist()})


def images_of(run: RunDir, source: Source) -> Source:
    """The images the run began with, in its order; files that came later are left out."""
    if isinstance(source, Stream):
        began_with = run.read_recipe()["resolved"]["num_images"]
        if len(source) != began_with:
            raise InputError(
                f"{source.name} has epochs of {len(source)} images, and {run.path} was begun with {began_with}; "
                "give the shards it was begun with."
            )
        return source
    if isinstance(source, ArraySource) and not run.images_file.exists():
        return source
    wanted, present = run.read_images(), {source.location(i) for i in range(len(source))}
    gone = [location for location in wanted if location not in present]
    if gone:
        raise InputError(
            f"{len(gone)} image(s) of {run.path} are gone, the first being {gone[0]}; put them back to resume."
        )
    return take_listed(source, wanted)


def add_skipped(run: RunDir, failed: dict[str, str], console: Console) -> None:
    """Write down what training could not read, beside what could not be read before. failed: reasons, by place."""
    known = run.read_skipped()
    run.write_skipped([*known, *(item for item in failed.items() if item not in known)])
    console.print(f"{len(failed)} images could not be read while training; they are listed in {run.skipped_file}.")
