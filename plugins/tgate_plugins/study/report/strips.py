"""The decisions of a run, one character a step."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from tgate_plugins.study.report.values import Method

#: Characters of a computed and of a skipped step.
COMPUTED, SKIPPED = "■", "·"

#: Gates in the order in which they are drawn; others follow by name.
GATES: Final = ("guidance", "cross")


@dataclass(frozen=True, slots=True)
class Strip:
    """One gate of one method.

    Args:
        gate: its name.
        cells: a character a step.
        words: the same for who cannot see it.
    """

    gate: str
    cells: str
    words: str

    @property
    def skipped(self) -> int:
        """Steps in which the gate is closed."""
        return self.cells.count(SKIPPED)


@dataclass(frozen=True, slots=True)
class Decisions:
    """The strips of one method."""

    method: Method
    strips: tuple[Strip, ...]


def decisions(methods: Iterable[Method]) -> tuple[Decisions, ...]:
    """Of every method whose run closes a gate or reports an event."""
    found = [Decisions(m, strips(m)) for m in methods if m.ran]
    return tuple(d for d in found if d.strips or d.method.events)


def strips(method: Method) -> tuple[Strip, ...]:
    """Guidance and cross, and any other gate that closes."""
    closed = method.closed or {}
    if method.steps is None or not any(closed.values()):
        return ()
    others = sorted(g for g, steps in closed.items() if steps and g not in GATES)
    return tuple(strip(gate, closed.get(gate, ()), method.steps) for gate in (*GATES, *others))


def strip(gate: str, closed: Collection[int], steps: int) -> Strip:
    """Draw one gate.

    >>> strip("cross", [2, 3, 4], 5).cells
    '■■···'
    """
    cells = "".join(SKIPPED if step in closed else COMPUTED for step in range(steps))
    return Strip(gate, cells, words(gate, closed, steps))


def words(gate: str, closed: Collection[int], steps: int) -> str:
    """Which steps a gate is closed in.

    >>> words("guidance", [3, 4, 5, 7], 10)
    'guidance closed in 4 of 10 steps: 3 to 5, 7'
    """
    shut = sorted(step for step in set(closed) if step < steps)
    if not shut:
        return f"{gate} open in all {steps} steps"
    ranges: list[list[int]] = []
    for step in shut:
        if ranges and step == ranges[-1][1] + 1:
            ranges[-1][1] = step
        else:
            ranges.append([step, step])
    said = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in ranges)
    return f"{gate} closed in {len(shut)} of {steps} steps: {said}"
