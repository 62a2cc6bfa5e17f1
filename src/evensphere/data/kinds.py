"""What kind of collection a path is, so that `--data ANYTHING` is all a person has to say."""

from __future__ import annotations

from pathlib import Path

# the sources that take anybody's own images, by what their path looks like
OWN = ("folder", "list", "table", "archive", "array", "hub", "shards", "split")

TARS = (".tar", ".tar.gz", ".tgz")
_BY_ENDING = {
    **dict.fromkeys((".txt", ".lst", ".json"), "list"),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "table"),
    **dict.fromkeys((".zip", *TARS), "archive"),
    **dict.fromkeys((".npy", ".npz"), "array"),
}
VALIDATION_NAMES = ("validation", "val", "valid", "dev")  # what people call that part, the usual name first
CARD = "card.json"  # of `evensphere split`
_HUB_FILES = ("dataset_dict.json", "dataset_info.json")  # of `datasets.save_to_disk`


def kind_of(path: str) -> str:
    """The source that reads `path`, one of OWN.

    A list, a table, an archive and an array are known by their names' endings. hub: hf://OWNER/NAME, or a folder made
    by `datasets.save_to_disk`. shards: several tar files, as a pattern (train-{000..099}.tar, *.tar), a web address or
    a folder that holds nothing else. split: a folder that `evensphere split` wrote. folder: every other folder, and
    patterns of image files.
    """
    if path.startswith("hf://"):
        return "hub"
    name = path.rstrip("/").rsplit("/", 1)[-1].lower()
    here = Path(path).expanduser()
    is_pattern = bool(set("*?[{") & set(path)) and not here.exists()
    if path.startswith(("http://", "https://")) or (is_pattern and name.endswith(TARS)):
        return "shards"
    if here.name == CARD and here.is_file():
        return "split"
    if here.is_dir():
        if (here / CARD).is_file() and (here / "train.txt").is_file():
            return "split"
        if any((here / file).is_file() for file in _HUB_FILES):
            return "hub"
        return "shards" if _holds_tars_only(here) else "folder"
    if is_pattern:
        return "folder"
    return next((kind for ending, kind in _BY_ENDING.items() if name.endswith(ending)), "folder")


def _holds_tars_only(folder: Path) -> bool:
    visible = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return bool(visible) and all(entry.name.lower().endswith(TARS) for entry in visible)
