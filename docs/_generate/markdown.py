"""Markdown from values: tables and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def cell(text: str) -> str:
    """One line that fits between two bars.

    A bar would end the cell. In code it becomes a word, since GitHub and Python-Markdown escape it
    there in ways of their own, and in types and usages "or" is what it means.

    >>> cell("`int | None`,\\n    where |b| < 1")
    '`int or None`, where &#124;b&#124; < 1'
    """
    parts = " ".join(text.split()).split("`")  # every second one is code
    return "`".join(
        re.sub(r" *\| *", " or ", part) if index % 2 else part.replace("|", "&#124;")
        for index, part in enumerate(parts)
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, a line a row.

    >>> print(table(["gate", "saves"], [["cross", "2 %"]]), end="")
    | gate | saves |
    |---|---|
    | cross | 2 % |
    """
    lines = [header, *rows]
    if any(len(line) != len(header) for line in lines):
        raise ValueError(f"rows of other than {len(header)} cells in the table of {header[0]!r}")
    first, *rest = (f"| {' | '.join(map(cell, line))} |\n" for line in lines)
    return first + "|" + "---|" * len(header) + "\n" + "".join(rest)


def code(text: str) -> str:
    """Text in backticks; a dash where there is none.

    >>> code("hold"), code("")
    ('`hold`', '-')
    """
    return f"`{text}`" if text else "-"


def codes(names: Iterable[str]) -> str:
    """Names in backticks, joined by commas; a dash where there are none.

    >>> codes(["guidance", "cross"])
    '`guidance`, `cross`'
    """
    return ", ".join(map(code, names)) or "-"


def linked(text: str) -> str:
    """Prose in which the docs' own pages are links, as docstrings name them.

    >>> linked("measured in docs/quality.md.")
    'measured in [quality](quality.md).'
    """
    return re.sub(r"\bdocs/([\w-]+)\.md\b", r"[\1](\1.md)", text)
