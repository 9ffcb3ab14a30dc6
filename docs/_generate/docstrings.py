"""What a Google docstring says: its first sentence, its prose, its arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Example|Examples):$|^>>> ", re.MULTILINE)
ARGUMENT = re.compile(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*): +", re.MULTILINE)
PAPER = re.compile(r"\b(\d{4}\.\d{4,5})\b")


def clean(thing: object) -> str:
    """A docstring without indentation; a string is taken as one."""
    text = thing if isinstance(thing, str) else getattr(thing, "__doc__", None)
    return inspect.cleandoc(text or "")


def prose(thing: object) -> str:
    """All before the first section or example.

    >>> prose("One. Two.\\n\\nArgs:\\n    x: three.")
    'One. Two.'
    """
    return SECTION.split(clean(thing), maxsplit=1)[0].strip()


def first_sentence(thing: object) -> str:
    """Up to the first full stop that a space or the end follows.

    >>> first_sentence("T-GATE's phases (arXiv 2404.02747).\\n\\nMore.")
    "T-GATE's phases (arXiv 2404.02747)."
    """
    paragraph = " ".join(prose(thing).partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) ", paragraph, maxsplit=1)[0]


def arguments(thing: object, section: str = "Args") -> dict[str, str]:
    """Each argument's text; `a, b: text` says it for both.

    >>> arguments("Do.\\n\\nArgs:\\n    a, b: one\\n        two.\\n    c: three.\\n\\nMore: no.")
    {'a': 'one two.', 'b': 'one two.', 'c': 'three.'}
    """
    _, found, rest = clean(thing).partition(f"{section}:\n")
    if not found:
        return {}
    block = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    _, *parts = ARGUMENT.split(block)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {name: " ".join(text.split()) for names, text in pairs for name in names.split(", ")}


def papers(*texts: object) -> Iterable[str]:
    """The arXiv numbers that docstrings name, each once, as links.

    >>> list(papers("as in 2404.02747", "arXiv 2404.02747"))
    ['[2404.02747](https://arxiv.org/abs/2404.02747)']
    """
    numbers = dict.fromkeys(n for text in texts for n in PAPER.findall(clean(text)))
    return [f"[{number}](https://arxiv.org/abs/{number})" for number in numbers]
