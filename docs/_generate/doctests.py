"""Doctests as the API page shows them: Markdown would read `>>>` as a quotation in a quotation."""

from __future__ import annotations

import re
from typing import Any

import griffe


class FencedDoctests(griffe.Extension):
    """Fences the doctests of every docstring that the API page reads."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """A docstring with a fence around each paragraph that is a doctest, as deep as it stands."""
    paragraph = re.compile(r"^( *)>>> (?:.+\n?)+", re.MULTILINE)
    return paragraph.sub(
        lambda found: f"{found[1]}```pycon\n{found[0].rstrip()}\n{found[1]}```\n", docstring
    )
