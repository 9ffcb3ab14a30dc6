"""Pages of the docs as programs: their Python blocks, in order, with what they say is printed."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: A fenced block, with the comment in the line above it that keeps it from being run.
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]*?) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NUMBER = re.compile(r"-?\d+(?:\.(\d+))?")


@dataclass(frozen=True)
class Block:
    """A block of Python.

    Args:
        text: the code.
        line: of the page, where it begins.
        why: the reason not to run it, or None.
        printed: the block of plain text right below it, or None.
    """

    text: str
    line: int
    why: str | None = None
    printed: str | None = None


def blocks(page: str) -> list[Block]:
    """The blocks of Python on a page."""
    found = list(FENCE.finditer(page))
    made = []
    for fence, after in zip(found, [*found[1:], None], strict=True):
        if fence["kind"] != "python":
            continue
        shown = after if after and after["kind"] == "text" else None
        below = shown and not page[fence.end() : shown.start()].strip()
        line = page.count("\n", 0, fence.start("text")) + 1
        made.append(Block(fence["text"], line, fence["why"], shown["text"] if below else None))
    return made


def run(path: Path) -> None:
    """Run a page's blocks in one namespace, as a reader would in one session.

    Raises:
        AssertionError: a block prints something else than the page says; or what a block raises.
    """
    page = types.ModuleType(f"page_{path.stem.replace('-', '_')}")
    with _imported(page):
        for block in blocks(path.read_text()):
            if block.why is None:
                printed = _run(block, path, vars(page))
                if block.printed is not None:
                    assert same(block.printed, printed), _difference(block, path, printed)


def same(said: str, printed: str) -> bool:
    """Whether a page's text is what was printed.

    `...` stands for any one word (times differ), and a number with decimals may be off by one in
    its last digit (so do processors).
    """
    words, found = said.split(), printed.split()
    return len(words) == len(found) and all(map(_alike, words, found))


def _alike(word: str, found: str) -> bool:
    if word in ("...", found):
        return True
    numbers = list(NUMBER.finditer(word)), list(NUMBER.finditer(found))
    if NUMBER.sub("#", word) != NUMBER.sub("#", found):
        return False
    return all(_near(a, b) for a, b in zip(*numbers, strict=True))


def _near(a: re.Match[str], b: re.Match[str]) -> bool:
    if a[1] is None:
        return a[0] == b[0]
    return abs(float(a[0]) - float(b[0])) <= 1.001 * 10.0 ** -len(a[1])


def _run(block: Block, path: Path, names: dict[str, Any]) -> str:
    # Blank lines above, so that a traceback names the page's own line.
    code = compile("\n" * (block.line - 1) + block.text, str(path), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def _difference(block: Block, path: Path, printed: str) -> str:
    return f"{path}:{block.line} says\n{block.printed}\nand prints\n{printed}"


@contextlib.contextmanager
def _imported(page: types.ModuleType) -> Iterator[None]:
    """Dataclasses look their module up."""
    sys.modules[page.__name__] = page
    try:
        yield
    finally:
        del sys.modules[page.__name__]
