"""A page of headings, paragraphs, tables and pictures, written once and rendered as markdown, HTML or LaTeX."""

from __future__ import annotations

import base64
import re
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


# --- LaTeX ------------------------------------------------------------------------------------------------------------

# what has a meaning of its own there, and what fonts of seven bits lack
_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"},
    **{"±": r"$\pm$", "°": r"\textdegree{}"},
}


def to_tex(blocks: Sequence[Block], name: str) -> str:
    """The page's tables, to be read into a document by \\input: floats with booktabs' rules, each with a caption (the
    heading above it and what its rows are) and the label tab:NAME-1, tab:NAME-2, ...

    Paragraphs become comments, since a document has its own words, and pictures are files beside this one.
    """
    lines = ["% \\usepackage{booktabs, adjustbox} before \\begin{document}, then \\input this file", ""]
    heading, tables = "", 0
    for block in blocks:
        match block:
            case Heading(_, heading):
                pass
            case Paragraph(text):
                lines += [*(f"% {line}" for line in text.splitlines()), ""]
            case Rows():
                tables += 1
                lines += [*_tex_table(block, heading, f"tab:{name}-{tables}"), ""]
            case Picture(file, caption):
                lines += [f"% {file}: {' '.join(caption.split())}", ""]
    return "\n".join(lines)


def _tex_table(rows: Rows, heading: str, label: str) -> list[str]:
    header, *body = ([_tex(cells[0]), *map(_tex_number, cells[1:])] for cells in (rows.header, *rows.rows))
    what = f"{heading}: {rows.header[0]}" if rows.header[0] else heading
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(what)}}}",
        rf"\label{{{label}}}",
        # never wider or higher than the page, and never blown up
        r"\begin{adjustbox}{max width=\linewidth, max totalheight=0.9\textheight, keepaspectratio}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
        *(f"{' & '.join(row)} \\\\" for row in body),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{adjustbox}",
        r"\end{table}",
    ]


def _tex(text: str) -> str:
    escaped = "".join(_ESCAPES.get(sign, sign) for sign in " ".join(text.split()))
    return f"{{}}{escaped}" if escaped[:1] in ("[", "*") else escaped  # lest the end of the row above takes it


def _tex_number(text: str) -> str:
    """Signs of numbers as signs, not as hyphens."""
    return re.sub(r"(?<![\w.})])([+-])(?=\d)", r"$\1$", _tex(text))
