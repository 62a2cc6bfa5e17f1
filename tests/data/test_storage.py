"""Which storage is chosen, for whom."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.data.image_files import write

from evensphere import values
from evensphere.data.folder import folder
from evensphere.data.source import ArraySource
from evensphere.data.storage import Room, choose_storage, free_room, needed_bytes
from evensphere.values import as_bytes

GB = 10**9
LAPTOP, SERVER = Room(8 * GB, 100 * GB), Room(400 * GB, 4000 * GB, 80 * GB)
PHOTOS = 448 * 597 * 3  # bytes of one


@pytest.mark.parametrize(
    ("wanted", "needed", "room", "expected"),
    [
        ("auto", 500 * PHOTOS, LAPTOP, "memory"),
        ("auto", 5_000 * PHOTOS, LAPTOP, "cache"),
        ("auto", 5_000 * PHOTOS, SERVER, "memory"),
        ("auto", 5_000 * PHOTOS, Room(8 * GB, 10 * GB), "files"),
        ("auto", 1_000_000 * PHOTOS, LAPTOP, "files"),
        ("auto", 1_000_000 * PHOTOS, SERVER, "files"),  # not without being asked
        ("cache", 1_000_000 * PHOTOS, SERVER, "cache"),
        ("cache", 1_000_000 * PHOTOS, LAPTOP, "files"),
        ("memory", 5_000 * PHOTOS, LAPTOP, "memory"),
        ("memory", 50_000 * PHOTOS, LAPTOP, "files"),
        ("files", 10, SERVER, "files"),
        ("device", 10, SERVER, "device"),
        ("device", 50_000 * PHOTOS, LAPTOP, "files"),
        ("device", 150_000 * PHOTOS, SERVER, "memory"),
    ],
)
def test_by_size_and_free_room(wanted: str, needed: int, room: Room, expected: str) -> None:
    chosen = choose_storage(wanted, needed, room, cacheable=True, one_tensor=False)
    assert chosen.storage == expected
    assert chosen.reason


@pytest.mark.parametrize("wanted", ["auto", "cache"])
def test_what_may_change_unseen_is_not_cached(wanted: str) -> None:
    chosen = choose_storage(wanted, 5_000 * PHOTOS, LAPTOP, cacheable=False, one_tensor=False)
    assert chosen.storage == "files"


def test_one_tensor_stays_where_it_is_or_goes_to_the_gpu() -> None:
    cifar = 50_000 * 3072
    assert choose_storage("auto", cifar, SERVER, cacheable=False, one_tensor=True).storage == "device"
    assert choose_storage("auto", cifar, LAPTOP, cacheable=False, one_tensor=True).storage == "memory"
    assert choose_storage("auto", 20 * GB, SERVER, cacheable=False, one_tensor=True).storage == "memory"
    assert choose_storage("cache", cifar, LAPTOP, cacheable=False, one_tensor=True).storage == "memory"


def test_the_estimate_is_of_the_shrunk_images(tmp_path: Path) -> None:
    for i in range(10):
        write(tmp_path / f"{i}.png", size=(40, 20))
    (tmp_path / "broken.png").write_text("")
    assert needed_bytes(folder(tmp_path).pretrain, 10) == 11 * 10 * 20 * 3
    assert needed_bytes(folder(tmp_path).pretrain, 100) == 11 * 40 * 20 * 3
    assert needed_bytes(ArraySource("x", torch.zeros(3, 1, 4, 5, dtype=torch.uint8)), 2) == 60


def test_a_container_bounds_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVENSPHERE_CACHE", str(tmp_path / "not" / "yet"))
    monkeypatch.setattr(values, "_container_memory", lambda: 1000)
    assert free_room().memory == 1000
    assert free_room().disk > 0
    assert free_room(7).device == 7


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (123_456_789, "123 MB"),
        (4.01e9, "4.0 GB"),
        (3e15, "3,000 TB"),
    ],
)
def test_bytes_in_words(count: float, text: str) -> None:
    assert as_bytes(count) == text
