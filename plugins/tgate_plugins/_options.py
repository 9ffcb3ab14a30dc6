"""Checks that our policies share: one sentence each, before anything is touched."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tgate_sampling.decision import GATES
from tgate_sampling.errors import OptionError, nearest


def check_gate_step(value: Any) -> None:
    """A whole number of steps, 1 or more.

    Raises:
        OptionError: with a hint where a fraction was meant.
    """
    if isinstance(value, float) and 0 < value < 1:
        raise OptionError(f"gate_step={value} is no whole step: did you mean fraction={value}?")
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(f"gate_step={value!r} must be a whole number, 1 or more.")
    if value < 1:
        raise OptionError(
            f"gate_step={value} must be 1 or more: the first step runs in full, so that there is "
            "something to reuse."
        )


def check_fraction(value: Any) -> None:
    """A share of the run, in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        hint = f" Did you mean gate_step={value}?" if isinstance(value, int) and value > 1 else ""
        raise OptionError(f"fraction={value!r} must be above 0 and at most 1.{hint}")


def check_positive(**values: Any) -> None:
    """Numbers above 0."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise OptionError(f"{name}={value!r} must be a number above 0.")


def check_count(minimum: int, **values: Any) -> None:
    """Whole numbers, `minimum` or more."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise OptionError(f"{name}={value!r} must be a whole number, {minimum} or more.")


def check_gates(gates: Collection[str]) -> None:
    """Names of gates, at least one."""
    if isinstance(gates, str) or not gates:
        raise OptionError(f"gates={gates!r} must be a collection of names, as in gates=('cross',).")
    for gate in gates:
        if gate not in GATES:
            raise OptionError(f"gates={gate!r} is unknown. {nearest(str(gate), GATES)}")
