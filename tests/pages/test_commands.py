"""A page that shows a command, an option or a setting that does not exist fails the build."""

from __future__ import annotations

import pytest
from tests.pages.commands import command_problems, inline_problems, problems_of, setting_problem
from tests.pages.reading import ROOT, Page, calls_of, pages


@pytest.fixture(autouse=True)
def examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages name the methods and data of examples/."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_what_a_page_shows_would_be_accepted(page: Page) -> None:
    assert problems_of(page) == []


def test_every_page_is_looked_at() -> None:
    """Most pages show commands; if none were found, the reading would be broken."""
    shown = {page.name: [call for call in page.calls if call.ours is not None] for page in pages()}
    assert len(shown["README.md"]) > 10
    assert sum(bool(calls) for calls in shown.values()) >= 5


@pytest.mark.parametrize(
    ("shown", "part_of_the_problem"),
    [
        ("evensphere trian folder", "no command 'trian'"),
        ("evensphere train folder --epohcs 3", "--epohcs"),
        ("evensphere train foldr", "no recipe 'foldr'"),
        ("evensphere train folder --arm both", "no arm 'both'"),
        ("evensphere train folder --devices many", "integer"),
        ("evensphere train folder --set method.temperatur=0.2", "temperatur"),
        ("evensphere train folder --set precision=half", "half"),
        ("evensphere train folder --set data.label_colum=x", "label_colum"),
        ("evensphere train folder --set epohcs=N", "epohcs"),
        ("evensphere data inspct photos", "no command 'inspct'"),
        ("evensphere data inspect photos --set chanels=1", "chanels"),
        ("evensphere evaluate RUN --metric knnn", "no metric 'knnn'"),
        ("evensphere reproduce pilots", "no table 'pilots'"),
        ("evensphere rare", "RUN"),
        ("PYTHONPATH=examples evensphere evaluate --trsut runs/a && evensphere report runs/a", "--trsut"),
        ("srun evensphere train folder --resum", "--resum"),
        ("torchrun --nproc-per-node 4 $(which evensphere) train folder --otu RUN", "--otu"),
    ],
)
def test_a_command_that_would_be_refused_is_a_problem(shown: str, part_of_the_problem: str) -> None:
    """A page with this line in a block would fail; without the mistake it would not."""
    (first, *_) = [problem for call in calls_of(shown) for problem in command_problems(call.ours or ())]
    assert part_of_the_problem in first


@pytest.mark.parametrize(
    "code", ["evensphere frob RUN", "--set method.tau=1", "--budgt N", "storage=nowhere", "--track frob --strct"]
)
def test_so_is_code_in_a_sentence(code: str) -> None:
    assert inline_problems(code)


@pytest.mark.parametrize(
    "code",
    [
        *("evensphere rare RUN", "evensphere curate RUN|PATH", "evensphere.find_rare", "--set epochs=N", "--resume"),
        *("--set data.OPTION=VALUE", "storage=cache", "--track wandb", "population=streaming", "--set images=LIST"),
    ],
)
def test_code_that_is_true_is_none(code: str) -> None:
    assert inline_problems(code) == []


def test_settings_are_those_of_some_part() -> None:
    assert setting_problem("data.label_column=species") is None
    assert setting_problem("stages.clusters=5") is None
    assert setting_problem("stages.clusters=many")


def test_a_page_with_an_option_that_does_not_exist_fails() -> None:
    page = Page(ROOT / "docs" / "made-up.md", "Try `--devces 4`:\n\n```\nevensphere train folder --devces 4\n```\n")
    assert len(problems_of(page)) == 2
