"""A page of headings, paragraphs, tables and pictures, written once and rendered as markdown or as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple


class Heading(NamedTuple):
    level: int
    text: str


class Paragraph(NamedTuple):
    text: str


class Rows(NamedTuple):
    """A table; its first column is text, the others are numbers."""

    header: list[str]
    rows: list[list[str]]


class Picture(NamedTuple):
    """file: a PNG, relative to the page's folder. caption: what it shows, in words."""

    file: str
    caption: str


Block = Heading | Paragraph | Rows | Picture


def to_markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Rows(header, rows):
            rule = "|---|" + "---:|" * (len(header) - 1)
            return "\n".join([_markdown_row(header), rule, *map(_markdown_row, rows)])
        case Picture(file, caption):
            return f"![{caption}]({file})\n\n*{caption}*"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


_STYLE = """:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
table { font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
img { max-width: 100%; background: white; }"""


# no scripts, nothing from elsewhere
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def to_html(blocks: Sequence[Block], folder: Path) -> str:
    """One self-contained page. folder: where the pictures lie."""
    title = next((escape(block.text) for block in blocks if isinstance(block, Heading)), "Results")
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n{body}\n</html>\n"
    )


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Rows(header, rows):
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
            return f"<table>\n<tr>{head}</tr>\n" + "".join(f"<tr>{line}</tr>\n" for line in lines) + "</table>"
        case Picture(file, caption):
            data = base64.b64encode((folder / file).read_bytes()).decode()
            alt = escape(caption, quote=True)
            return (
                f'<figure><img src="data:image/png;base64,{data}" alt="{alt}"><figcaption>{alt}</figcaption></figure>'
            )
