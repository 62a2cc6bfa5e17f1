"""What strangers hand over runs no code, stays in its folder, and is no order to a page, a table or a terminal."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.image_files import write
from typer.testing import CliRunner

from evensphere.cli.console import plain_console, say
from evensphere.cli.main import app
from evensphere.data.archive import archive
from evensphere.data.arrays import array
from evensphere.engine.checkpoint import read_checkpoint, save_encoder
from evensphere.errors import InputError
from evensphere.recipes.recipe import Recipe, get_recipe, with_data
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.recipes.trust import trusting
from evensphere.report import write_report
from evensphere.reproduce.page import Heading, Paragraph, Rows, to_html
from evensphere.rundir import RunDir
from evensphere.spreadsheet import read_csv, to_csv

CLI = CliRunner()

# --- pickles ----------------------------------------------------------------------------------------------------------


class Reduced:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def by_reduce(marker: Path) -> bytes:
    return pickle.dumps({"model": Reduced(marker)})


def by_global(marker: Path) -> bytes:
    """Protocol 0's opcodes: GLOBAL, MARK, a text, TUPLE, REDUCE."""
    return b"cposix\nmkdir\n(V" + str(marker).encode() + b"\ntR."


def by_inst(marker: Path) -> bytes:
    """INST, which calls without REDUCE."""
    return b"(V" + str(marker).encode() + b"\niposix\nmkdir\n."


def by_stack_global(marker: Path) -> bytes:
    """STACK_GLOBAL of protocol 4, and builtins.eval."""
    code = f"__import__('os').mkdir({str(marker)!r})".encode()
    called = b"\x8c\x08builtins\x8c\x04eval\x93"  # two short texts, and what they name
    return b"\x80\x04" + called + b"X" + len(code).to_bytes(4, "little") + code + b"\x85R."


def as_torch_file(pickled: bytes) -> bytes:
    """torch's zip, with another pickle in it."""
    stream = io.BytesIO()
    torch.save({"format": 1}, stream)
    made = io.BytesIO()
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return made.getvalue()


BOMBS = [by_reduce, by_global, by_inst, by_stack_global]


@pytest.mark.parametrize("make", BOMBS)
def test_the_bombs_are_live(make: Callable[[Path], bytes], tmp_path: Path) -> None:
    pickle.loads(make(tmp_path / "marker"))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("make", BOMBS)
def test_a_checkpoint_runs_nothing(make: Callable[[Path], bytes], zipped: bool, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.create()
    content = make(tmp_path / "marker")
    run.checkpoint_file(1).write_bytes(as_torch_file(content) if zipped else content)
    with pytest.raises(InputError, match="cannot be read"):
        read_checkpoint(run, 1)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_numpy_file_runs_nothing(suffix: str, tmp_path: Path) -> None:
    bomb = np.empty(1, dtype=object)
    bomb[0] = Reduced(tmp_path / "marker")
    file = tmp_path / f"images{suffix}"
    if suffix == ".npy":
        np.save(file, bomb, allow_pickle=True)
    else:
        np.savez(file, images=bomb)
    with pytest.raises(InputError, match="cannot be read as a numpy file"):
        array(file)
    assert not (tmp_path / "marker").exists()


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def malicious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunDir, Path]:
    """A stranger's run whose recipe names a module that makes a folder when it is imported."""
    marker = tmp_path / "marker"
    (tmp_path / "payload.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "payload", raising=False)  # of another test
    run = RunDir(tmp_path / "run")
    run.create()
    content = get_recipe("digits-lt").to_json()
    content["method"]["name"] = "payload:Method"
    run.write_json(run.recipe_file, content)
    return run, marker


def test_a_recipe_runs_nothing(malicious: tuple[RunDir, Path]) -> None:
    run, marker = malicious
    own = get_recipe("digits-lt")
    for use in (
        lambda: evaluate(run.path),
        lambda: train(own, run.path, resume=True),
        lambda: train(own, run.path.parent / "new", branch=run.path),
        lambda: train(own.set(["optimizer=rwsam", f"optimizer.pretrained={run.path}"]), run.path.parent / "new"),
    ):
        with pytest.raises(InputError, match=r"method = payload:Method.*--trust"):
            use()
    assert write_report(run.path).is_file()  # which needs no code
    assert not marker.exists()


def own_code_of(part: str, folder: Path) -> Path:
    """An encoder file whose description names code for a part."""
    described = {kind: {"name": "digits", "options": {"size": 8}} for kind in ("backbone", "views")}
    described[part] = {"name": "payload:Part", "options": {}}
    folder.mkdir()
    save_encoder(folder / "encoder.safetensors", torch.nn.Linear(1, 1), described)
    return folder / "encoder.safetensors"


@pytest.mark.parametrize(
    "command",
    [
        "evaluate RUN",
        "finetune RUN",
        "diagnose RUN",
        "rare RUN --out OUT",
        "curate RUN --size 5 --out OUT",
        "compare RUN OTHER --labels PHOTOS",
        "diagnose PHOTOS --weights BACKBONE",
        "curate PHOTOS --size 5 --out OUT --weights VIEWS",
    ],
)
def test_no_command_runs_a_strangers_code_unless_it_is_trusted(
    command: str, malicious: tuple[RunDir, Path], tmp_path: Path
) -> None:
    run, marker = malicious
    other = RunDir(tmp_path / "other")
    other.create()
    other.write_json(other.recipe_file, get_recipe("digits-lt", "base").to_json())
    for label in "ab":
        for i in range(2):
            write(tmp_path / "photos" / label / f"{i}.png")
    paths = {"RUN": run.path, "OUT": tmp_path / "out", "OTHER": other.path, "PHOTOS": tmp_path / "photos"}
    paths |= {part.upper(): own_code_of(part, tmp_path / part) for part in ("backbone", "views")}
    arguments = [str(paths.get(word, word)) for word in command.split()]
    refused = CLI.invoke(app, arguments)
    assert isinstance(refused.exception, InputError)
    assert re.search(r"names code that is not evensphere's, \w+ = payload:\w+.*--trust", str(refused.exception))
    assert not marker.exists()
    trusted = CLI.invoke(app, [*arguments, "--trust"])
    assert "cannot be imported" in str(trusted.exception), "it has nothing of that name, but was asked for it"
    assert marker.exists()


def test_who_is_trusted_is_run(malicious: tuple[RunDir, Path]) -> None:
    run, marker = malicious
    with pytest.raises(InputError, match="cannot be imported"):  # it has no Method, but was asked for it
        evaluate(run.path, trust=True)
    assert marker.exists()


def test_a_path_that_was_typed_is_trusted_and_no_other() -> None:
    content = get_recipe("digits-lt").set(["method=evensphere.methods.base:Method"]).to_json()
    with pytest.raises(InputError, match="--trust"), trusting(False, "other:Method"):
        Recipe.from_json(content)
    with trusting(False, "evensphere.methods.base:Method"):
        assert Recipe.from_json(content).import_paths == ["evensphere.methods.base:Method"]
    with pytest.raises(InputError, match="--trust"):
        Recipe.from_json(content)


@pytest.mark.parametrize("kind", ["data", "views", "backbone", "harmonizer", "optimizer", "schedule", "stages"])
def test_no_part_of_a_recipe_is_a_way_in(kind: str) -> None:
    content = get_recipe("digits-lt").to_json() | {kind: {"name": "os:system", "options": {"command": "false"}}}
    with pytest.raises(InputError, match=f"{kind} = os:system"):
        Recipe.from_json(content)


def test_a_recipe_opens_no_weights() -> None:
    content = get_recipe("digits-lt").to_json()
    content["backbone"] = {"name": "timm/resnet18", "options": {"checkpoint_path": "weights.pth"}}
    with pytest.raises(InputError, match=r"backbone\.checkpoint_path"):
        Recipe.from_json(content)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"epochs": 1e400}', '{"epochs": NaN}', '{"epochs": ' + "9" * 5000 + "}", "[]", "\xff", ""],
    ids=["deep", "overflow", "nan", "digits", "list", "bytes", "empty"],
)
def test_a_recipe_that_is_no_recipe_is_one_sentence(text: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.recipe_file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read"):
        run.read_recipe()


def test_a_recipe_without_end_is_not_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with run.recipe_file.open("wb") as file:
        file.truncate(10**11)  # takes no room on the disk
    with pytest.raises(InputError, match="longer than the 4,000,000 bytes"):
        run.read_recipe()


# --- archives ---------------------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("evil", "reason"),
    [
        (member("../../x.png"), "leads out"),
        (member("a/../../x.png"), "leads out"),
        (member("/x.png"), "leads out"),
        (member("a/x.png", tarfile.SYMTYPE, "../../secret.png"), "a link"),
        (member("a/x.png", tarfile.LNKTYPE, "/secret.png"), "a link"),
        (member("a/x.png", tarfile.CHRTYPE), "not a plain file"),
        (member("a/x.png", tarfile.FIFOTYPE), "not a plain file"),
    ],
    ids=lambda value: value.name + str(value.type) if isinstance(value, tarfile.TarInfo) else "",
)
def test_a_tar_stays_in_itself(evil: tarfile.TarInfo, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "secret.png")
    picture = write(tmp_path / "in" / "picture.png").read_bytes()
    with tarfile.open(tmp_path / "in" / "images.tar", "w") as made:
        for info in (member("a/1.png"), member("a/2.png"), evil):
            info.size = len(picture) if info.isreg() else 0
            made.addfile(info, io.BytesIO(picture) if info.isreg() else None)
    source = archive(tmp_path / "in" / "images.tar").pretrain
    assert [source.location(i) for i in range(len(source))] == ["a/1.png", "a/2.png"]
    assert [why for _, why in source.unlisted if reason in why] != []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["images.tar", "in", "picture.png", "secret.png"]


def test_a_member_that_says_it_is_small_is_not_inflated(tmp_path: Path) -> None:
    """A zip bomb: 200 MB of zeros that the index calls 100 bytes."""
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.png", bytes(200_000_000))
        made.writestr("b.png", b"x")
    content = file.read_bytes()
    file.write_bytes(content.replace((200_000_000).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    source = archive(file).pretrain
    with pytest.raises(Exception, match="damaged in the archive"):
        source.read(0)


# --- names ------------------------------------------------------------------------------------------------------------

SCRIPT = "<script>alert(1)<!--.png"
ORDERS = "\x1b[31mred\x1b[0m [bold]b[/bold] [/x] \u202e \x07.png"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def assert_inert(page: str, scripts: int) -> None:
    tags = Tags(page).tags
    names = [tag for tag, _ in tags]
    assert names.count("script") == scripts
    assert not set(names) & {"img", "a", "iframe", "object", "embed", "form", "base", "link"}
    assert not [attrs for _, attrs in tags if any(name.startswith("on") or name == "href" for name in attrs)]
    policy = next(attrs["content"] for tag, attrs in tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_a_name_that_is_a_script_is_text_from_training_to_the_report(tmp_path: Path) -> None:
    """The classes and a broken image have such names, which reach eval.json, skipped.csv, figures and tables."""
    photos = tmp_path / "photos"
    for c, name in enumerate(("<img src=x onerror=alert(2)>", "<a href=javascript:alert(3)>", "=1+1")):
        for i in range(8):
            write(photos / name / f"{i}.png", colour=(80 * c, 9 * i, 50))
    (photos / "=1+1" / SCRIPT).write_text("no image")
    small = [
        "epochs=1",
        "views=photos",
        "views.size=8",
        "backbone=resnet-small",
        "backbone.width=4",
        "backbone.stages=2",
    ]
    small += ["evaluate_every=1 epochs", "harmonizer=none", "schedule=plain", "schedule.warm_up=0.0", "workers=0"]
    run = train(with_data(get_recipe("folder"), str(photos)).set(small), tmp_path / "<b>run")
    evaluate(run, metrics=["knn"])
    assert [path for path, _ in RunDir(run).read_skipped()] == [f"=1+1/{SCRIPT}"]
    assert RunDir(run).skipped_file.read_text().splitlines()[1].startswith("\"'=1+1/")
    assert json.loads(RunDir(run).evaluation_file.read_text())["classes"][0] == "<a href=javascript:alert(3)>"
    assert_inert(write_report(run).read_text(), scripts=3)


def test_the_page_of_a_table_is_inert_too(tmp_path: Path) -> None:
    evil = f"{SCRIPT} <img src=x onerror=alert(1)>"
    assert_inert(to_html([Heading(1, evil), Paragraph(evil), Rows([evil], [[evil]])], tmp_path), scripts=0)


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\uff1d1",
        "'=1",
        "''",
        "'",
        "plain",
        "",
        'a"b',
        "a,b",
        "a\nb",
        "é",
    ],
)
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str, tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(to_csv(["path", "n"], [[cell, -3], ["other", None]]))
    assert read_csv(file) == [{"path": cell, "n": "-3"}, {"path": "other", "n": ""}]
    first = file.read_bytes().decode().split("\n", 1)[1].lstrip('"')
    assert not first.startswith(("=", "+", "-", "@", "\t", "\r", "\uff1d"))


def test_the_terminal_is_given_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table(title=ORDERS)
    table.add_column(ORDERS)
    table.add_row(ORDERS)
    console = plain_console(width=200)
    console.print(ORDERS, soft_wrap=True)
    console.print(table)
    say(ORDERS)
    printed = capsys.readouterr().out
    assert not set(printed) & {"\x1b", "\u202e", "\x07"}
    assert printed.count(r"\x1b[31mred\x1b[0m [bold]b[/bold] [/x] \u202e \x07.png") == 4 + 1
