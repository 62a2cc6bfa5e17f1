"""Every link of a page leads somewhere: to a file of the repository, and to a heading where it names one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.pages.reading import DOCS, ROOT, Page, pages, read_page

ALL = [*pages(), read_page(DOCS / "log.md"), read_page(DOCS / "results.md")]


def broken_links(page: Page) -> list[str]:
    """Links into the repository that lead nowhere."""
    return [link for link in page.links if "://" not in link and not _leads_somewhere(page, link)]


def _leads_somewhere(page: Page, link: str) -> bool:
    path, _, anchor = link.partition("#")
    if not path:
        return anchor in page.anchors
    target = (page.path.parent / path).resolve()
    return target.exists() and (not anchor or anchor in read_page(target).anchors)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Page) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.name)
def test_links_of_the_site_stay_on_it(page: Page) -> None:
    """The site holds what is in docs; what is beside it is named by its path, not linked."""
    if page.path.is_relative_to(DOCS):
        local = [link.partition("#")[0] for link in page.links if "://" not in link]
        assert not [link for link in local if not (page.path.parent / link).resolve().is_relative_to(DOCS)]


def test_a_link_to_nowhere_is_seen(tmp_path: Path) -> None:
    (tmp_path / "b.md").write_text("# There it is\n")
    text = "[a](b.md) [b](b.md#there-it-is) [c](b.md#gone) [d](c.md) [e](#here) `[f](g.md)`\n\n## Here\n"
    assert broken_links(Page(tmp_path / "a.md", text)) == ["b.md#gone", "c.md"]


def test_every_page_can_be_reached_from_the_front_page() -> None:
    """From README or the site's front page, by links and by the site's menu."""
    seen: set[Path] = set()
    to_see = [ROOT / "README.md", DOCS / "index.md", *(DOCS / page for page in in_the_menu())]
    while to_see:
        page = to_see.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        links = [link.partition("#")[0] for link in read_page(page).links if "://" not in link]
        to_see += [(page.parent / link).resolve() for link in links if link]
    assert {page.path for page in ALL} <= seen


def in_the_menu() -> list[str]:
    """The pages that mkdocs.yml names."""
    return re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text().split("\nnav:")[1])
