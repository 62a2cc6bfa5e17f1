"""How the page writes numbers and lists in English."""

from __future__ import annotations

from collections.abc import Sequence

NBSP = "\N{NO-BREAK SPACE}"
PERCENT = f"{NBSP}%"


def count(number: int, noun: str) -> str:
    """ "1 seed", "2 seeds", "1,234 images"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listing(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"; empty for no words."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def capital(sentence: str) -> str:
    """With a capital first letter, the rest as it is; a word like kNN keeps its own."""
    return sentence if sentence[1:2].isupper() else sentence[:1].upper() + sentence[1:]


def three_figures(value: float) -> str:
    """A number as short as three figures allow, or all figures before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
