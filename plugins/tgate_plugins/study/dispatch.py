"""Handing out work: whoever is free gets what is ready, until nothing is.

Engines differ in where their workers live, and in nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from tgate_plugins.study.items import Item, Output

#: How often a worker may die over the same item before the item is given up: a machine that goes
#: away once is no fault of the work, one that goes three times is.
ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Made:
    """A worker made something of its item."""

    worker: int
    output: Output


@dataclass(frozen=True)
class Finished:
    """A worker is done with its item."""

    worker: int


@dataclass(frozen=True)
class Died:
    """A worker is gone in the middle of its item; another stands in its place."""

    worker: int
    why: str


Event: TypeAlias = Made | Finished | Died


class Pool(Protocol):
    """Workers, by number."""

    @property
    def size(self) -> int:
        """How many there are."""

    def give(self, worker: int, item: Item) -> None:
        """Begin an item on a worker that is free."""

    def events(self) -> Iterable[Event]:
        """Wait until something happened, and say what."""

    def close(self) -> None:
        """Let all workers go, in the middle of their work if need be."""


def drive(
    pool: Pool,
    ready: Callable[[], Iterable[Item]],
    keep: Callable[[Output], None],
    give_up: Callable[[Item, str], Iterable[Output]],
) -> None:
    """Do all that is ready, and what becomes ready by it.

    Args:
        pool: does the work.
        ready: everything that can be done now, in any state of affairs.
        keep: takes each output as it comes; after it, `ready` no longer asks for it.
        give_up: what is said of that part of an item over which workers keep dying.
    """
    busy: dict[int, Item] = {}
    last: dict[int, str] = {}
    deaths: Counter[str] = Counter()
    while True:
        _hand_out(pool, ready, busy, last)
        if not busy:
            return
        for event in pool.events():
            match event:
                case Made(_, output):
                    keep(output)
                case Finished(worker):
                    del busy[worker]
                case Died(worker, why):
                    item = busy.pop(worker)
                    deaths[item.id] += 1
                    if deaths[item.id] >= ATTEMPTS:
                        del deaths[item.id]  # what is left of the item has its own three lives
                        for output in give_up(item, why):
                            keep(output)


def _hand_out(
    pool: Pool, ready: Callable[[], Iterable[Item]], busy: dict[int, Item], last: dict[int, str]
) -> None:
    free = [worker for worker in range(pool.size) if worker not in busy]
    if not free:
        return
    taken = {item.id for item in busy.values()}
    waiting = [item for item in ready() if item.id not in taken]
    for worker in free:
        if not waiting:
            return
        item = choose(waiting, last.get(worker), {k: v for k, v in last.items() if k != worker})
        waiting.remove(item)
        busy[worker], last[worker] = item, item.model
        pool.give(worker, item)


def choose(waiting: Sequence[Item], own: str | None, others: Mapping[int, str]) -> Item:
    """The item that costs a worker least: of the model it holds, else of one that nobody holds.

    >>> from tgate_plugins.study.items import Curves
    >>> choose([Curves("a"), Curves("b")], "b", {}).model
    'b'
    >>> choose([Curves("a"), Curves("b")], None, {1: "a"}).model
    'b'
    """
    held = set(others.values())
    return min(waiting, key=lambda item: (item.model != own, item.model in held))
