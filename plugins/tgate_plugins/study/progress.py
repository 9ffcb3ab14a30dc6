"""How far a study is: a bar for each model on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

#: Of each model: pictures there are, and pictures there will be.
Planned: TypeAlias = Mapping[str, tuple[int, int]]
Tell: TypeAlias = Callable[[Callable[[], Planned], str], None]

#: Seconds between looks at the plan, which takes longer the larger the study is; and between lines
#: where there is no terminal.
LOOK: Final = 1.0
LINE: Final = 30.0


@contextmanager
def progress(console: Console) -> Iterator[Tell]:
    """`tell(plan, doing)`: what there is to do, and what is being done."""
    if not console.is_terminal:  # rich 13 and 14.1 end even a disabled bar with an empty line
        yield _lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[doing]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _bars(bar)


def _bars(bar: Progress) -> Tell:
    tasks: dict[str, TaskID] = {}
    looked = float("-inf")

    def tell(plan: Callable[[], Planned], doing: str) -> None:
        nonlocal looked
        if time.monotonic() - looked < LOOK:
            return
        looked = time.monotonic()
        for name, (done, total) in plan().items():
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=None, doing="")
            now = doing if doing.startswith(f"{name}: ") else ""
            bar.update(tasks[name], completed=done, total=total or None, doing=now)

    return tell


def _lines(console: Console) -> Tell:
    said = time.monotonic()

    def tell(plan: Callable[[], Planned], doing: str) -> None:
        nonlocal said
        if time.monotonic() - said < LINE:
            return
        said = time.monotonic()
        counts = ", ".join(f"{name} {done} of {total}" for name, (done, total) in plan().items())
        console.print(f"{counts} ({doing})", markup=False, soft_wrap=True)

    return tell
