"""`interleave`: look at the unconditional branch every few steps, and estimate it in between."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tgate_plugins._options import check_count, check_gates
from tgate_sampling.decision import Answer, Decision
from tgate_sampling.errors import OptionError
from tgate_sampling.hookspecs import RegisterPolicy, hookimpl
from tgate_sampling.policy import Policy
from tgate_sampling.signals import Signals
from tgate_sampling.steps import StepContext


@dataclass(frozen=True)
class Interleave(Policy):
    """Guide the first steps, then every `every`-th one; the steps between cost one branch.

    What is left out is spread evenly from the first step that may be estimated to the last. The
    first follows the longest row of looks, which is when the estimate is best, and an error in the
    last is nearly free, since no later step builds on it. On the model of docs/quality.md that and
    a first third in full make the difference between losing to fewer steps at equal cost and
    beating it.

    Args:
        every: of how many steps one is a look.
        warm_up: guided steps at the start, where guidance turns fastest.
        start: the same as a share of the run, whichever is longer. Runs of 7, 12 and 22 steps cost
            as many rows as 6, 10 and 18 full ones.
        gates: what closes between looks. Cross-attention stays open by default: it is some percent
            of the work, and a look re-opens it anyway.

    >>> [bool(d.closed) for d in Interleave().plan(7) or ()]
    [False, False, False, True, False, False, True]
    """

    name = "interleave"
    every: int = 2
    warm_up: int = 3
    start: float = 0.3
    gates: Collection[str] = ("guidance",)
    estimator = "linear"

    def __post_init__(self) -> None:
        check_count(1, every=self.every, warm_up=self.warm_up)
        if not 0 <= self.start < 1:
            raise OptionError(f"start={self.start!r} must be a share of the run, 0 to below 1.")
        check_gates(self.gates)

    def decide(self, step: StepContext, signals: Signals) -> Answer:
        return self._at(step.index, step.total)

    def plan(self, total: int) -> Sequence[Answer] | None:
        return [self._at(index, total) for index in range(total)]

    def _at(self, index: int, total: int | None) -> Decision:
        if total is None:  # the sampler finds its end as it goes: looks are counted from the start
            look = index < self.warm_up or (index - self.warm_up + 1) % self.every == 0
        else:
            # 1e-9: 0.3 * 10 is 3.0000000000000004 in floating point, and 3 steps are meant.
            first = max(self.warm_up, math.ceil(self.start * total - 1e-9))
            look = index < first or index - first in looks(total - first, self.every)
        if look:
            return Decision(reason="a look at both branches")
        return Decision(frozenset(self.gates), reason="between looks")


@functools.cache  # asked at every step
def looks(left: int, every: int) -> frozenset[int]:
    """Which of the `left` last steps are looked at: one in `every`, evenly, neither end if it can.

    >>> sorted(looks(4, 2)), sorted(looks(8, 2)), sorted(looks(9, 2)), sorted(looks(2, 2))
    ([1, 2], [1, 3, 4, 6], [1, 3, 5, 7], [0])
    """
    if every == 1:
        return frozenset(range(left))
    count = left // every
    # The end comes first: of two steps the second is estimated.
    return frozenset(min(left - 2, left * (n + 1) // (count + 1)) for n in range(count))


@hookimpl
def tgate_register_policies(register: RegisterPolicy) -> None:
    register("interleave", Interleave)
