"""The map of a run's images, drawn with a progress bar: for the commands that draw one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evensphere.cli.console import plain_console
from evensphere.cli.reading import Reading
from evensphere.errors import InputError
from evensphere.rundir import RunDir

IMAGES = 20_000  # on a map


def draw(
    folder: Path, images: int = IMAGES, data: Sequence[str] = (), trust: bool = False, typed: Sequence[str] = ()
) -> None:
    """Write RUN/map.json. data, trust: as of `train`; typed: import paths that the user named."""
    from evensphere.recipes.mapping import draw_map
    from evensphere.recipes.trust import trusting

    with trusting(trust, *typed), Reading("Embedding images for the map") as progress:
        draw_map(folder, images, data, progress)


def draw_after_training(
    folder: Path, images: int, data: Sequence[str] = (), trust: bool = False, typed: Sequence[str] = ()
) -> None:
    """The same for a run that was just trained and has none yet: what keeps it from being drawn is said, and no more,
    since the run is finished and sound."""
    if images == 0 or RunDir(folder).map_file.exists():
        return
    try:
        draw(folder, images, data, trust, typed)
    except (InputError, OSError) as error:
        plain_console(stderr=True).print(f"No map of the images was drawn: {error}", soft_wrap=True)
