"""A diagnosis in words for a terminal, and as one HTML page that loads nothing."""

from __future__ import annotations

import base64
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from evensphere.diagnosis.finding import LEVELS, Diagnosis, Finding, Level
from evensphere.diagnosis.pictures import draw
from evensphere.report.wording import NBSP, count, listing

if TYPE_CHECKING:
    from rich.console import Console

_WORDS: dict[Level, str] = {"alarm": "ALARM", "warning": "warning", "info": "note", "ok": "fine"}
_STYLES: dict[Level, str] = {"alarm": "bold red", "warning": "bold yellow", "info": "bold blue", "ok": "green"}


def headline(diagnosis: Diagnosis) -> str:
    """The whole in one sentence: how many of what, and what to read first."""
    levels = Counter(finding.level for finding in diagnosis.findings)
    noun = {"alarm": "alarm", "warning": "warning", "info": "note"}
    told = [count(levels[level], noun[level]) for level in ("alarm", "warning", "info") if levels[level]]
    fine = f"{levels['ok']:,} fine" if levels["ok"] else ""
    return f"{listing([*told, *([fine] if fine else [])])}."


# --- in a terminal ----------------------------------------------------------------------------------------------------


def print_page(diagnosis: Diagnosis, console: Console) -> None:
    """What needs attention with its evidence, notes without, what is fine in a line each; the page has all of it."""
    from rich.padding import Padding
    from rich.text import Text

    looked = f"{count(diagnosis.looked_at, 'image')} of {diagnosis.images:,} looked at, no label seen"
    console.print(Text(f"{diagnosis.subject}: {diagnosis.what}", style="bold"))
    console.print(Text(f"{looked}. {headline(diagnosis)}\n".replace(NBSP, " ")))
    for finding in diagnosis.by_urgency():
        line = Text()
        line.append(f"{_WORDS[finding.level]:>7}  ", style=_STYLES[finding.level])
        line.append(finding.title, style="bold")
        console.print(line)
        for words, style in _paragraphs(finding):
            console.print(Padding(Text(words.replace(NBSP, " "), style=style), (0, 0, 0, 9)))
        console.print()


def _paragraphs(finding: Finding) -> list[tuple[str, str]]:
    """What is said of a finding in a terminal, with its style."""
    said = [(finding.sentence, "")]
    if finding.level != "ok":
        said += [(f"What to do: {finding.advice}", "")] if finding.advice else []
    if finding.level in ("warning", "alarm"):
        said.append((f"Why: {finding.evidence}", "dim"))
    return said


# --- as a page --------------------------------------------------------------------------------------------------------

_STYLE = """:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
section { border: 1px solid var(--line); border-left: .4rem solid var(--level); border-radius: .3rem; }
section { padding: .2rem 1.2rem 1rem; margin: 1rem 0; }
h2 { font-size: 1.1rem; margin: .6rem 0 .3rem; }
.level { color: var(--level); text-transform: uppercase; font-size: .8rem; margin-right: .6rem; }
.alarm { --level: #c62828; } .warning { --level: #b26a00; } .info { --level: #1565c0; } .ok { --level: #2e7d32; }
.evidence { opacity: .75; font-size: .93rem; }
img { max-width: 100%; background: white; }
@media (prefers-color-scheme: dark) {
  .alarm { --level: #ef9a9a; } .warning { --level: #ffcc80; } .info { --level: #90caf9; } .ok { --level: #a5d6a7; }
}"""


def to_html(diagnosis: Diagnosis) -> str:
    """One self-contained page, pictures included."""
    title = escape(f"Diagnosis of {diagnosis.subject}")
    looked = f"{diagnosis.looked_at:,} of {diagnosis.images:,} images were looked at, and no label"
    body = "\n".join(_section(finding) for finding in diagnosis.by_urgency())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n<h1>{title}</h1>\n"
        f"<p>{escape(diagnosis.what)}. {looked}.</p>\n"
        f"<p><strong>{escape(headline(diagnosis))}</strong></p>\n{body}\n</html>\n"
    )


def _section(finding: Finding) -> str:
    level = f'<span class="level">{_WORDS[finding.level]}</span>'
    advice = f"<p><strong>What to do:</strong> {escape(finding.advice)}</p>\n" if finding.advice else ""
    return (
        f'<section class="{finding.level}">\n<h2>{level}{escape(finding.title)}</h2>\n'
        f"<p>{escape(finding.sentence)}</p>\n"
        f'{advice}{_figure(finding)}<p class="evidence">Why: {escape(finding.evidence)}</p>\n</section>'
    )


def _figure(finding: Finding) -> str:
    if finding.chart is None:
        return ""
    data, words = base64.b64encode(draw(finding.chart)).decode(), escape(finding.chart.caption, quote=True)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{words}"><figcaption>{words}</figcaption></figure>\n'


assert set(_WORDS) == set(_STYLES) == set(LEVELS)
