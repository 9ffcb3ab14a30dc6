"""The consoles, and the few ways in which things are said on them."""

from __future__ import annotations

import os
import sys

from rich.console import Console

#: Columns where nobody's terminal says how wide it is (a pipe, a log): wide enough for tables.
WIDE = 150


def console(*, stderr: bool = False) -> Console:
    """A console on stdout or stderr; plain text and wide when it is no terminal."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDE
    return made


def complain(message: str) -> None:
    """One sentence on stderr."""
    sys.stderr.write(f"tgate-sampling: {message}\n")


def si(value: float | None) -> str:
    """A large number with its unit.

    >>> si(1.5e9), si(None), si(12)
    ('1.50 G', '-', '12')
    """
    if value is None:
        return "-"
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f}"


def ratio(value: float | None) -> str:
    """A speedup, as `1.43x`."""
    return "-" if value is None else f"{value:.2f}x"
