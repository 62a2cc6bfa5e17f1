"""Makes an environment that holds what some requirements ask for and nothing else, without downloading anything.

    python .ci/environment.py FOLDER 'evensphere[lightly]' pytest ...

What is installed beside this Python is linked into a virtual environment of its own: the packages that are required,
what these require, and so on. So whoever runs there finds out whether the requirements say all that is needed. The
`evensphere` in it is the one that is installed here.
"""

from __future__ import annotations

import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def required(texts: list[str]) -> set[str]:
    """The names of all distributions that these requirements lead to."""
    asked = [(Requirement(text), "") for text in texts]
    seen: set[tuple[str, str]] = set()
    names = set()
    while asked:
        requirement, extra = asked.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        try:
            theirs = distribution(name).requires or []
        except PackageNotFoundError:
            if extra:  # of an extra of somebody else's that nobody installed
                continue
            raise
        names.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                asked += [(Requirement(text), wanted) for text in theirs]
    return names


def owners() -> dict[str, set[str]]:
    """Who has installed something in each file or folder among the packages."""
    found: dict[str, set[str]] = {}
    for one in distributions():
        name = canonicalize_name(one.name)
        for file in one.files or []:
            found.setdefault(file.parts[0], set()).add(name)
    return found


def link(name: str, target: Path, owned: dict[str, set[str]]) -> None:
    """What a distribution has installed among the packages: whole folders where they are its own, else file by file."""
    found = distribution(name)
    for file in found.files or []:
        if file.parts[0] == "..":  # a command, which nobody needs here
            continue
        inside = Path(file.parts[0]) if owned[file.parts[0]] == {name} else Path(*file.parts)
        place = target / inside
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(found.locate_file(inside))


def main(folder: str, *texts: str) -> None:
    venv.create(folder, clear=True, symlinks=True)
    target, owned = next(Path(folder).glob("lib/python*/site-packages")), owners()
    for name in sorted(required(list(texts))):
        link(name, target, owned)


if __name__ == "__main__":
    main(*sys.argv[1:])
