"""What an offender is: one sin, the check that must catch it, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offender:
    """One sin.

    Args:
        check: the name of the check that must catch it.
        make: gives the case's subject.
        says: a part of the sentence it must be caught with.
    """

    check: str
    make: Callable[[], Any]
    says: str
