"""The check before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.data.image_files import recorded_reads, write

from evensphere.data.folder import folder
from evensphere.data.scan import readable, scan
from evensphere.data.source import ArraySource
from evensphere.errors import InputError


def dirty_folder(root: Path, good: int, bad: int) -> Path:
    for i in range(good):
        write(root / f"good{i:03}.png")
    for i in range(bad):
        (root / f"bad{i:03}.jpg").write_text("no image")
    return root


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_image_is_decoded_once(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(dirty_folder(tmp_path, good=150, bad=3)).pretrain
    reads = recorded_reads(monkeypatch)
    seen: list[tuple[int, int]] = []
    unreadable = scan(source, workers, lambda done, total: seen.append((done, total)))
    assert [i for i, _ in unreadable] == [0, 1, 2]
    assert {reason for _, reason in unreadable} == {"not an image, or of a kind Pillow cannot read"}
    assert sorted(reads) == list(range(153))
    assert seen == [(64, 153), (128, 153), (153, 153)]
    kept = readable(source, unreadable)
    assert len(kept) == 150
    assert scan(kept, workers) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_read_can_be_looked_at(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder(dirty_folder(tmp_path, good=100, bad=2)).pretrain
    reads = recorded_reads(monkeypatch)
    seen: dict[int, tuple[int, ...]] = {}
    scan(source, workers, see=lambda i, image: seen.update({i: tuple(image.shape)}))
    assert seen == dict.fromkeys(range(2, 102), (3, 6, 8))
    assert sorted(reads) == list(range(102)), "each image is decoded once"


def test_an_interrupted_check_stops(tmp_path: Path) -> None:
    source = folder(dirty_folder(tmp_path, good=130, bad=0)).pretrain

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(source, 2, interrupt)


def test_a_clean_source_is_returned_as_it_is(tmp_path: Path) -> None:
    source = folder(dirty_folder(tmp_path, good=2, bad=0)).pretrain
    assert readable(source, scan(source)) is source


@pytest.mark.parametrize(("good", "bad"), [(3, 4), (1, 1), (0, 2)])
def test_mostly_unreadable_folders_are_refused(tmp_path: Path, good: int, bad: int) -> None:
    source = folder(dirty_folder(tmp_path, good, bad)).pretrain
    message = rf"{bad} of the {good + bad} images of .* first being bad000\.jpg \(not an image"
    with pytest.raises(InputError, match=message):
        readable(source, scan(source))


def test_half_unreadable_is_still_dirt(tmp_path: Path) -> None:
    source = folder(dirty_folder(tmp_path, good=4, bad=4)).pretrain
    assert len(readable(source, scan(source))) == 4


def test_arrays_need_no_check() -> None:
    source = ArraySource("x", torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    assert scan(source) == []
    seen: list[int] = []
    assert scan(source, see=lambda i, image: seen.append(i)) == []
    assert seen == [0, 1, 2], "but they can be looked at"
